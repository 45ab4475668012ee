# What a run is told: config/default.yaml under the user's own, the sheet of a sweep, and what is wrong with either.
import csv
import difflib
import importlib.util
import os
import sys
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

STEPS = "collect ingest pretrain precompute posttrain probe validate evaluate report".split()


def read_yaml(path):
    """A YAML file that lies beside this one, wherever this workflow was taken from."""
    return yaml.safe_load(Path(workflow.source_path(path)).read_text())


def nearest(name, names):
    """What was probably meant, as the end of a sentence."""
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


def check(tree, schema, where):
    """Refuse what does not fit a schema, naming the key, what is allowed and what was probably meant."""
    for error in sorted(Draft202012Validator(schema).iter_errors(tree), key=str):
        key = ".".join(map(str, error.absolute_path))
        allowed = error.schema.get("properties", {})
        if error.validator == "additionalProperties":
            name = next(name for name in error.instance if name not in allowed)
            path = f"{key}.{name}" if key else name
            says = f"no such key; allowed are {', '.join(allowed)}{nearest(name, list(allowed))}"
            raise WorkflowError(f"{where}: {path}: {says}")
        about = error.schema.get("description", "")
        raise WorkflowError(
            f"{where}: {key or 'the whole'}: {error.message}"
            + (f"; {about}" if about else "")
        )


# As a module of another workflow this is told all by that one's `module` statement, and its own default file is not read.
told = dict(config)
config.update(read_yaml("../../config/default.yaml"))
update_config(config, told)
check(config, read_yaml("../schemas/config.schema.yaml"), "config")


def read_sweep(path):
    """The runs of a sheet: what each changes, as `step.key: value`, or `step: preset`; an empty cell changes nothing."""
    if not path:
        return {}
    if not Path(path).is_file():
        raise WorkflowError(
            f"config: sweep: {path}: no such file; it is a CSV with a column `run`"
        )
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        names, rows = reader.fieldnames or [], list(reader)
    for name in names:
        step = name.split(".")[0]
        if name != "run" and step not in STEPS:
            says = f"no such step; a column is `run`, a step, or step.key{nearest(step, STEPS)}"
            raise WorkflowError(f"{path}: column {name}: {says}")
    runs = {}
    for number, row in enumerate(rows, start=2):
        cells = {
            name: yaml.safe_load(cell)
            for name, cell in row.items()
            if name and cell and cell.strip()
        }
        check(
            cells, read_yaml("../schemas/sweep.schema.yaml"), f"{path}: line {number}"
        )
        if cells["run"] in runs:
            raise WorkflowError(
                f"{path}: line {number}: run: {cells['run']!r} is the name of an earlier line as well"
            )
        runs[cells.pop("run")] = cells
    return runs


# The `vjepa2` that was installed beside this Snakemake comes first, whether or not its environment is active.
BESIDE = str(Path(sys.executable).parent)
if os.get_exec_path()[0] != BESIDE:
    os.environ.update(PATH=os.pathsep.join([BESIDE, *os.get_exec_path()]))

# Where this is the whole workflow, the command takes the shell's place, and ends when Snakemake does, however that ended. The
# shell of other people's rules is left as it is.
if Path(str(workflow.current_basedir)).parent.parent == Path(workflow.basedir):
    shell.prefix("exec env VJEPA2_END_WITH_PARENT=1 ")

# Where the presets of that command lie, to run again what reads one that was edited.
installed = importlib.util.find_spec("vjepa2cli")
PRESETS = (
    Path(installed.origin).parent / "presets"
    if installed and installed.origin
    else None
)
