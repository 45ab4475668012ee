# From recordings to a success rate and one HTML page. Every rule is one call of the command `vjepa2`.
from snakemake.utils import min_version

min_version("9.3")


include: "workflow/rules/configuration.smk"
include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


container: config["container"]


localrules:
    all,


rule all:
    input:
        f"{RESULTS}/report.html",


include: "workflow/rules/configs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/verdicts.smk"
