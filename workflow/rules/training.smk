# Training. A run directory is never a declared output, since a retry would delete its checkpoints: report.json, which is
# written last, is. One thread a training, so that two of them run side by side on two cores.


rule pretrain:
    input:
        config=resolved("pretrain"),
        store=f"{RESULTS}/{PRETRAINING_STORE}.zarr.json",
    output:
        report=f"{RESULTS}/pretrain/report.json",
    log:
        f"{RESULTS}/logs/pretrain.log",
    priority: 70
    threads: 1
    resources:
        nodes=1,
        processes=1,
    params:
        store=subpath(input.store, strip_suffix=".json"),
        run_dir=subpath(output.report, parent=True),
    shell:
        "vjepa2 --threads {threads} launch --nodes {resources.nodes} --processes {resources.processes} "
        "-- pretrain {params.store:q} --run-dir {params.run_dir:q} --config {input.config:q} --replace > {log:q} 2>&1"


# The baselines need the shape of the encoder and not its weights, so they need not wait for the pretraining.
rule initialise:
    input:
        config=resolved("pretrain"),
    output:
        config=f"{RESULTS}/initial/config.json",
    log:
        f"{RESULTS}/logs/initialise.log",
    threads: 1
    params:
        model=subpath(output.config, parent=True),
    shell:
        "vjepa2 weights init {input.config:q} --out {params.model:q} > {log:q} 2>&1"


rule precompute:
    input:
        config=resolved("precompute"),
        store=f"{RESULTS}/robot.zarr.json",
        encoder=lambda wildcards: (
            rules.pretrain.output.report
            if wildcards.encoder == "trained"
            else rules.initialise.output.config
        ),
    output:
        latents=f"{RESULTS}/latents/{{encoder}}.h5",
    log:
        f"{RESULTS}/logs/precompute-{{encoder}}.log",
    priority: 60
    threads: 1
    params:
        store=subpath(input.store, strip_suffix=".json"),
        encoder=encoder_source,
    shell:
        "vjepa2 --threads {threads} precompute {params.store:q} --model {params.encoder:q} --out {output.latents:q} "
        "--config {input.config:q} --replace > {log:q} 2>&1"


rule posttrain:
    input:
        config=resolved("posttrain"),
        latents=rules.precompute.output.latents,
    output:
        report=f"{RESULTS}/posttrain/{{encoder}}/report.json",
    log:
        f"{RESULTS}/logs/posttrain-{{encoder}}.log",
    priority: 50
    threads: 1
    resources:
        nodes=1,
        processes=1,
    params:
        run_dir=subpath(output.report, parent=True),
    shell:
        "vjepa2 --threads {threads} launch --nodes {resources.nodes} --processes {resources.processes} "
        "-- posttrain {input.latents:q} --run-dir {params.run_dir:q} --config {input.config:q} --replace > {log:q} 2>&1"


rule probe:
    input:
        config=resolved("probe"),
        store=f"{RESULTS}/robot.zarr.json",
        encoder=rules.pretrain.output.report,
    output:
        report=f"{RESULTS}/probe/report.json",
    log:
        f"{RESULTS}/logs/probe.log",
    priority: 45
    threads: 1
    params:
        store=subpath(input.store, strip_suffix=".json"),
        encoder=subpath(input.encoder, parent=True),
        run_dir=subpath(output.report, parent=True),
    shell:
        "vjepa2 --threads {threads} probe {params.store:q} --model {params.encoder:q} --run-dir {params.run_dir:q} "
        "--config {input.config:q} --replace > {log:q} 2>&1"
