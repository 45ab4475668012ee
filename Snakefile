# From recordings to a success rate and one HTML page. Every rule is one call of the command `vjepa2`.
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version, validate

min_version("9.3")


configfile: Path(workflow.basedir) / "config" / "default.yaml"


validate(config, Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml")


container: config["container"]


# The `vjepa2` that was installed beside this Snakemake comes first, whether or not its environment is active. It takes the
# shell's place, and ends when Snakemake does, however that ended.
BESIDE = shlex.quote(str(Path(sys.executable).parent))
shell.prefix(f'exec env VJEPA2_END_WITH_PARENT=1 PATH={BESIDE}:"$PATH" ')


include: "workflow/rules/common.smk"
include: "workflow/rules/configs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/verdicts.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
