# The resolved config of each step is a file that its rule reads: an edited value re-runs exactly what depends on it.


localrules:
    resolve_config,


rule resolve_config:
    input:
        preset_files,
    output:
        "{home}/config/{step}.yaml",
    log:
        "{home}/logs/config/{step}.log",
    params:
        preset=preset,
        overrides=overrides,
    shell:
        "vjepa2 config resolve {params.preset:q} {params.overrides} --out {output:q} > {log:q} 2>&1"
