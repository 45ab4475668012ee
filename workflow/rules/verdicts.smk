# How good it is: on held-out recordings, in the simulator, and on one page.


rule validate:
    input:
        config=resolved("validate"),
        latents=made("precompute", "latents/{encoder}.h5"),
        model=made("posttrain", "posttrain/{encoder}/report.json"),
    output:
        report="{home}/validate/{encoder}.json",
    log:
        "{home}/logs/validate-{encoder}.log",
    benchmark:
        "{home}/benchmarks/validate-{encoder}.tsv"
    priority: 30
    threads: 1
    params:
        model=subpath(input.model, parent=True),
        store=f"{RESULTS}/robot.zarr",
    shell:
        "vjepa2 --threads {threads} validate {input.latents:q} --model {params.model:q} --out {output.report:q} "
        "--store {params.store:q} "
        "--config {input.config:q} > {log:q} 2>&1"


# Parts are jobs of their own, each with a file of the episodes that it has played; evaluate takes them, and plays what is left: all
# of them where `shards` says 1. Each core plays episodes of its own.
rule evaluate_part:
    input:
        config=resolved("evaluate"),
        latents=made("precompute", "latents/{encoder}.h5"),
        model=made("posttrain", "posttrain/{encoder}/report.json"),
    output:
        episodes="{home}/evaluate/{encoder}/report-{part}-of-{parts}.jsonl",
    log:
        "{home}/logs/evaluate-{encoder}-{part}-of-{parts}.log",
    benchmark:
        "{home}/benchmarks/evaluate-{encoder}-{part}-of-{parts}.tsv"
    priority: 40
    threads: 1
    params:
        model=subpath(input.model, parent=True),
        report="{home}/evaluate/{encoder}/report.json",
        shard=shard,
    shell:
        "vjepa2 --threads {threads} evaluate --model {params.model:q} --out {params.report:q} --shard {params.shard} "
        "--latents {input.latents:q} --config {input.config:q} --workers {threads} > {log:q} 2>&1"


rule evaluate:
    input:
        config=resolved("evaluate"),
        latents=made("precompute", "latents/{encoder}.h5"),
        model=made("posttrain", "posttrain/{encoder}/report.json"),
        parts=parts("evaluate", "{home}/evaluate/{encoder}/report-{part}.jsonl"),
    output:
        report="{home}/evaluate/{encoder}/report.json",
    log:
        "{home}/logs/evaluate-{encoder}.log",
    benchmark:
        "{home}/benchmarks/evaluate-{encoder}.tsv"
    priority: 40
    threads: 1
    params:
        model=subpath(input.model, parent=True),
    shell:
        "vjepa2 --threads {threads} evaluate --model {params.model:q} --out {output.report:q} "
        "--latents {input.latents:q} --config {input.config:q} --workers {threads} > {log:q} 2>&1"


rule report:
    input:
        config=resolved("report"),
        reports=reports,
        others=other_runs,
    output:
        page=report(
            "{home}/report.html",
            caption="../report/page.rst",
            category="Results",
            labels={"run": "{home}", "what": "the page"},
        ),
        summary=report(
            "{home}/summary.json",
            caption="../report/summary.rst",
            category="Results",
            labels={"run": "{home}", "what": "its numbers"},
        ),
    log:
        "{home}/logs/report.log",
    benchmark:
        "{home}/benchmarks/report.tsv"
    threads: 1
    params:
        comparison=comparison,
        benchmarks=benchmarks,
    shell:
        "vjepa2 report {input.reports:q} --out {output.page:q} --summary {output.summary:q} {params.comparison} "
        "{params.benchmarks} --config {input.config:q} > {log:q} 2>&1"


# What it will take, beforehand: `snakemake cost`. The rates are measured once, by a job like those that train.
localrules:
    cost,


rule rates:
    output:
        rates="{home}/rates.json",
    log:
        "{home}/logs/rates.log",
    benchmark:
        "{home}/benchmarks/rates.tsv"
    threads: 1
    shell:
        "vjepa2 --threads {threads} doctor --bench --out {output.rates:q} > {log:q} 2>&1"


rule cost:
    input:
        rates=f"{RESULTS}/rates.json",
        configs=expand(f"{RESULTS}/config/{{step}}.yaml", step=STEPS),
    log:
        f"{RESULTS}/logs/cost.log",
    threads: 1
    params:
        encoders=",".join(ENCODERS),
    shell:
        "vjepa2 config cost {input.configs:q} --rates {input.rates:q} --encoders {params.encoders} 2> {log:q}"
