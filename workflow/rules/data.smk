# Recordings, and the stores of decoded frames that everything later reads.


rule collect:
    input:
        config=resolved("collect"),
    output:
        summary="{home}/recordings/collection.json",
    log:
        "{home}/logs/collect.log",
    benchmark:
        "{home}/benchmarks/collect.tsv"
    priority: 90
    threads: 2
    params:
        recordings=subpath(output.summary, parent=True),
    shell:
        "vjepa2 collect --out {params.recordings:q} --config {input.config:q} --workers {threads} --replace > {log:q} 2>&1"


# Parts are jobs of their own that fill one store; ingest lists what is in it, and is the whole work where `shards` says 1.
rule ingest_part:
    input:
        config=resolved("ingest"),
        recordings=recordings,
        labels=label_files,
    output:
        summary="{home}/parts/{store}-{part}-of-{parts}.json",
    log:
        "{home}/logs/ingest-{store}-{part}-of-{parts}.log",
    benchmark:
        "{home}/benchmarks/ingest-{store}-{part}-of-{parts}.tsv"
    priority: 80
    threads: 2
    params:
        sources=sources,
        labels=labels,
        store="{home}/{store}.zarr",
        shard=shard,
    shell:
        "vjepa2 ingest {params.sources} --out {params.store:q} {params.labels} --summary {output.summary:q} "
        "--shard {params.shard} --config {input.config:q} --workers {threads} --replace > {log:q} 2>&1"


rule ingest:
    input:
        config=resolved("ingest"),
        recordings=recordings,
        labels=label_files,
        parts=parts("ingest", "{home}/parts/{store}-{part}.json"),
    output:
        summary="{home}/{store}.zarr.json",
    log:
        "{home}/logs/ingest-{store}.log",
    benchmark:
        "{home}/benchmarks/ingest-{store}.tsv"
    priority: 80
    threads: 2
    params:
        sources=sources,
        labels=labels,
        store=subpath(output.summary, strip_suffix=".json"),
    shell:
        "vjepa2 ingest {params.sources} --out {params.store:q} {params.labels} --summary {output.summary:q} "
        "--config {input.config:q} --workers {threads} --replace > {log:q} 2>&1"
