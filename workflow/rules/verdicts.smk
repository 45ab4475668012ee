# How good it is: on held-out recordings, in the simulator, and on one page.


rule validate:
    input:
        config=resolved("validate"),
        latents=rules.precompute.output.latents,
        model=rules.posttrain.output.report,
    output:
        report=f"{RESULTS}/validate/{{encoder}}.json",
    log:
        f"{RESULTS}/logs/validate-{{encoder}}.log",
    priority: 30
    threads: 1
    params:
        model=subpath(input.model, parent=True),
    shell:
        "vjepa2 --threads {threads} validate {input.latents:q} --model {params.model:q} --out {output.report:q} "
        "--config {input.config:q} > {log:q} 2>&1"


rule evaluate:
    input:
        config=resolved("evaluate"),
        model=rules.posttrain.output.report,
    output:
        report=f"{RESULTS}/evaluate/{{encoder}}/report.json",
    log:
        f"{RESULTS}/logs/evaluate-{{encoder}}.log",
    priority: 40
    threads: 1
    params:
        model=subpath(input.model, parent=True),
    shell:
        "vjepa2 --threads {threads} evaluate --model {params.model:q} --out {output.report:q} "
        "--config {input.config:q} > {log:q} 2>&1"


rule report:
    input:
        config=resolved("report"),
        reports=reports(),
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    threads: 1
    shell:
        "vjepa2 report {input.reports:q} --out {output.page:q} --config {input.config:q} > {log:q} 2>&1"
