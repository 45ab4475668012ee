# Training. A run directory is never a declared output, since a retry would delete its checkpoints: report.json, which is
# written last, is. One thread a training, so that two of them run side by side on two cores.


rule pretrain:
    input:
        config=resolved("pretrain"),
        store=made("ingest", f"{PRETRAINING_STORE}.zarr.json"),
    output:
        report="{home}/pretrain/report.json",
    log:
        "{home}/logs/pretrain.log",
    benchmark:
        "{home}/benchmarks/pretrain.tsv"
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
        config="{home}/initial/config.json",
    log:
        "{home}/logs/initialise.log",
    benchmark:
        "{home}/benchmarks/initialise.tsv"
    threads: 1
    params:
        model=subpath(output.config, parent=True),
    shell:
        "vjepa2 weights init {input.config:q} --out {params.model:q} > {log:q} 2>&1"


# Parts are jobs of their own, each with a file that goes on where it was killed; precompute makes them one store, and is the
# whole work where `shards` says 1.
rule precompute_part:
    input:
        config=resolved("precompute"),
        store=made("ingest", "robot.zarr.json"),
        encoder=encoder_weights,
    output:
        latents="{home}/latents/{encoder}-{part}-of-{parts}.h5",
    log:
        "{home}/logs/precompute-{encoder}-{part}-of-{parts}.log",
    benchmark:
        "{home}/benchmarks/precompute-{encoder}-{part}-of-{parts}.tsv"
    priority: 60
    threads: 1
    params:
        store=subpath(input.store, strip_suffix=".json"),
        encoder=encoder_source,
        whole="{home}/latents/{encoder}.h5",
        shard=shard,
    shell:
        "vjepa2 --threads {threads} precompute {params.store:q} --model {params.encoder:q} --out {params.whole:q} "
        "--shard {params.shard} --config {input.config:q} --replace > {log:q} 2>&1"


rule precompute:
    input:
        config=resolved("precompute"),
        store=made("ingest", "robot.zarr.json"),
        encoder=encoder_weights,
        parts=parts("precompute", "{home}/latents/{encoder}-{part}.h5"),
    output:
        latents="{home}/latents/{encoder}.h5",
    log:
        "{home}/logs/precompute-{encoder}.log",
    benchmark:
        "{home}/benchmarks/precompute-{encoder}.tsv"
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
        latents=made("precompute", "latents/{encoder}.h5"),
    output:
        report="{home}/posttrain/{encoder}/report.json",
    log:
        "{home}/logs/posttrain-{encoder}.log",
    benchmark:
        "{home}/benchmarks/posttrain-{encoder}.tsv"
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


# Parts are jobs of their own, each with some of the encoders that are compared; probe takes over what they have done, and is the
# whole work where `shards` says 1.
rule probe_part:
    input:
        config=resolved("probe"),
        store=made("ingest", "robot.zarr.json"),
        encoder=made("pretrain", "pretrain/report.json"),
    output:
        note="{home}/probe/part-{part}-of-{parts}.json",
    log:
        "{home}/logs/probe-{part}-of-{parts}.log",
    benchmark:
        "{home}/benchmarks/probe-{part}-of-{parts}.tsv"
    priority: 45
    threads: 1
    params:
        store=subpath(input.store, strip_suffix=".json"),
        encoder=subpath(input.encoder, parent=True),
        run_dir=subpath(output.note, parent=True),
        shard=shard,
    shell:
        "vjepa2 --threads {threads} probe {params.store:q} --model {params.encoder:q} --run-dir {params.run_dir:q} "
        "--shard {params.shard} --config {input.config:q} --replace > {log:q} 2>&1"


rule probe:
    input:
        config=resolved("probe"),
        store=made("ingest", "robot.zarr.json"),
        encoder=made("pretrain", "pretrain/report.json"),
        parts=parts("probe", "{home}/probe/part-{part}.json"),
    output:
        report="{home}/probe/report.json",
    log:
        "{home}/logs/probe.log",
    benchmark:
        "{home}/benchmarks/probe.tsv"
    priority: 45
    threads: 1
    params:
        store=subpath(input.store, strip_suffix=".json"),
        encoder=subpath(input.encoder, parent=True),
        run_dir=subpath(output.report, parent=True),
    shell:
        "vjepa2 --threads {threads} probe {params.store:q} --model {params.encoder:q} --run-dir {params.run_dir:q} "
        "--config {input.config:q} --replace > {log:q} 2>&1"
