# The resolved config of each step is a file that its rule reads: an edited value re-runs exactly what depends on it.


localrules:
    resolve_config,


rule resolve_config:
    input:
        preset_files,
    output:
        f"{RESULTS}/config/{{step}}.yaml",
    log:
        f"{RESULTS}/logs/config/{{step}}.log",
    params:
        preset=lambda wildcards: config["presets"][wildcards.step],
        overrides=overrides,
    shell:
        "vjepa2 config resolve {params.preset:q} {params.overrides} --out {output:q} > {log:q} 2>&1"
