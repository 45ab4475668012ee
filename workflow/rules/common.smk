# Names and functions that the rules use.
import json
import shlex

import yaml
from snakemake.exceptions import WorkflowError

RESULTS = config["results"].rstrip("/")
DATA = Path(config["data"])
ENCODERS = config["encoders"]
PRESETS = Path(workflow.basedir) / "vjepa2cli" / "presets"

HAS_ROBOT = config["simulate"] or bool(config["episodes"])
HAS_LABELS = config["simulate"] or bool(config["labels"])
PRETRAINING_STORE = "videos" if config["videos"] else "robot"
LABELLED_STORE = "robot" if HAS_ROBOT else "videos"

if not (HAS_ROBOT or config["videos"]):
    raise WorkflowError(
        "simulate is false, and videos and episodes are empty: name recordings, or set simulate to true"
    )
if config["simulate"] and config["episodes"]:
    raise WorkflowError(
        "simulate is true and episodes names recordings: a run has one robot, so set simulate to false or empty episodes"
    )


wildcard_constraints:
    encoder="trained|untrained|pixels",
    step="[a-z]+",
    store="videos|robot",


def source_files(names):
    """Every file of the user's own data below `names`: a new or changed file re-runs what reads it."""
    paths = [DATA / name for name in names]
    below = [sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths]
    return [str(file) for files in below for file in files if file.is_file()]


for name in [*config["videos"], *config["episodes"], *filter(None, [config["labels"]])]:
    if not (DATA / name).exists():
        raise WorkflowError(
            f"{DATA / name}: no such file or folder; set `data` (now {config['data']}) to the folder that holds {name}, "
            "in a config file given by --configfile"
        )


def preset_files(wildcards):
    """The YAML file of a step's config and those that it builds on, as far as they are files that can be edited here."""
    files, name = [], config["presets"][wildcards.step]
    while name:
        shipped = PRESETS / f"{name}.yaml"
        path = shipped if shipped.is_file() else Path(name)
        if not path.is_file():
            break
        here = path.is_relative_to(Path.cwd())
        files.append(str(path.relative_to(Path.cwd()) if here else path))
        name = (yaml.safe_load(path.read_text()) or {}).get("base")
    return files


def leaves(tree, prefix=""):
    """`a.b=value` for every value of a nested mapping, in an order of their own: moving a line changes nothing."""
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"


def overrides(wildcards):
    """The --set options of a step."""
    changes = config["overrides"].get(wildcards.step, {})
    return " ".join(f"--set {shlex.quote(change)}" for change in leaves(changes))


def resolved(step):
    """The resolved config of a step."""
    return f"{RESULTS}/config/{step}.yaml"


def recorded_by_collect(wildcards):
    """Whether a store holds what `collect` recorded."""
    return config["simulate"] and wildcards.store == "robot"


def named_recordings(wildcards):
    """What the user named for a store."""
    return config["videos" if wildcards.store == "videos" else "episodes"]


def recordings(wildcards):
    """The files that a store is made of."""
    if recorded_by_collect(wildcards):
        return rules.collect.output.summary
    return source_files(named_recordings(wildcards))


def label_files(wildcards):
    """The user's CSV of labelled windows."""
    if (
        config["labels"]
        and wildcards.store == LABELLED_STORE
        and not recorded_by_collect(wildcards)
    ):
        return source_files([config["labels"]])
    return []


def sources(wildcards):
    """The files and folders to ingest, as arguments."""
    if recorded_by_collect(wildcards):
        folders = [Path(rules.collect.output.summary).parent]
    else:
        folders = [DATA / name for name in named_recordings(wildcards)]
    return " ".join(shlex.quote(str(folder)) for folder in folders)


def labels(wildcards, input):
    """The option that names the CSV of labelled windows."""
    if recorded_by_collect(wildcards):
        return f"--labels {shlex.quote(str(Path(input.recordings).parent / 'motion_windows.csv'))}"
    return f"--labels {shlex.quote(str(input.labels))}" if input.labels else ""


def encoder_source(wildcards, input):
    """Which encoder makes the latents: the pretrained one, its untrained twin, or none but the pixels."""
    folder = str(Path(input.encoder).parent)
    return folder if wildcards.encoder == "trained" else f"{wildcards.encoder}:{folder}"


def reports():
    """All that the page is drawn from, in the order of the chain: what was recorded and stored, and every report."""
    wanted = [rules.collect.output.summary] if config["simulate"] else []
    wanted += [f"{RESULTS}/{store}.zarr.json" for store in stores()]
    wanted.append(rules.pretrain.output.report)
    if HAS_LABELS:
        wanted.append(rules.probe.output.report)
    if HAS_ROBOT:
        wanted += expand(rules.precompute.output.latents, encoder=ENCODERS)
        wanted += expand(rules.posttrain.output.report, encoder=ENCODERS)
        wanted += expand(rules.validate.output.report, encoder=ENCODERS)
    if config["simulate"]:
        wanted += expand(rules.evaluate.output.report, encoder=ENCODERS)
    return wanted


def stores():
    """The video stores of this run."""
    return (["videos"] if config["videos"] else []) + (["robot"] if HAS_ROBOT else [])
