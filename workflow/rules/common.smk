# Names and functions that the rules use.
import json
import re
import shlex

RESULTS = config["results"].rstrip("/")
DATA = Path(config["data"])
ENCODERS = config["encoders"]

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


# Of each step what must be the same in two runs for them to share what it makes: all that it is made from.
TRUNK = ["collect", "ingest", "pretrain"]
LATENTS = [*TRUNK, "precompute"]
MADE_FROM = {
    "collect": ["collect"],
    "ingest": ["collect", "ingest"],
    "pretrain": TRUNK,
    "precompute": LATENTS,
    "posttrain": [*LATENTS, "posttrain"],
    "probe": [*TRUNK, "probe"],
    "validate": [*LATENTS, "posttrain", "validate"],
    "evaluate": [*LATENTS, "posttrain", "evaluate"],
    "report": STEPS,
}
# The run without a name is the one of the configuration alone.
RUNS = {"": {}} | read_sweep(config["sweep"])


wildcard_constraints:
    home=re.escape(RESULTS) + r"(/runs/[\w.-]+)?",
    encoder="trained|untrained|pixels",
    step="[a-z]+",
    part=r"\d{5}",
    parts=r"\d{5}",
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


def run_of(wildcards):
    """Which run a folder is of."""
    return "" if wildcards.home == RESULTS else Path(wildcards.home).name


def changed(run, steps):
    """What a run changes about these steps."""
    return {
        key: value for key, value in RUNS[run].items() if key.split(".")[0] in steps
    }


def home(step, run):
    """The folder of what a step makes for a run: that of the first run which agrees with it up to there."""
    steps = MADE_FROM[step]
    first = next(
        other for other in RUNS if changed(other, steps) == changed(run, steps)
    )
    return f"{RESULTS}/runs/{first}" if first else RESULTS


def made(step, path):
    """What another step makes for the same run, as an input function; `path` is what lies below its folder."""
    return (
        lambda wildcards: f"{home(step, run_of(wildcards))}/{path.format(**wildcards)}"
    )


def preset(wildcards):
    """The preset of a step in a run."""
    return RUNS[run_of(wildcards)].get(
        wildcards.step, config["presets"][wildcards.step]
    )


def preset_files(wildcards):
    """The YAML file of a step's config and those that it builds on, as far as they are files that can be edited here."""
    files, name = [], preset(wildcards)
    while name:
        shipped = PRESETS / f"{name}.yaml" if PRESETS else Path()
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
    """The --set options of a step; of one that a run's line names as well, its own comes last and wins."""
    changes = list(leaves(config["overrides"].get(wildcards.step, {})))
    own = RUNS[run_of(wildcards)].items()
    changes += [
        f"{key.partition('.')[2]}={json.dumps(value)}"
        for key, value in own
        if key.startswith(f"{wildcards.step}.")
    ]
    return " ".join(f"--set {shlex.quote(change)}" for change in changes)


def resolved(step):
    """The resolved config of a step."""
    return f"{{home}}/config/{step}.yaml"


def recorded_by_collect(wildcards):
    """Whether a store holds what `collect` recorded."""
    return config["simulate"] and wildcards.store == "robot"


def named_recordings(wildcards):
    """What the user named for a store."""
    return config["videos" if wildcards.store == "videos" else "episodes"]


def recordings(wildcards):
    """The files that a store is made of."""
    if recorded_by_collect(wildcards):
        return made("collect", "recordings/collection.json")(wildcards)
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


def sources(wildcards, input):
    """The files and folders to ingest, as arguments."""
    if recorded_by_collect(wildcards):
        folders = [Path(input.recordings).parent]
    else:
        folders = [DATA / name for name in named_recordings(wildcards)]
    return " ".join(shlex.quote(str(folder)) for folder in folders)


def labels(wildcards, input):
    """The option that names the CSV of labelled windows."""
    if recorded_by_collect(wildcards):
        return f"--labels {shlex.quote(str(Path(input.recordings).parent / 'motion_windows.csv'))}"
    return f"--labels {shlex.quote(str(input.labels))}" if input.labels else ""


def encoder_weights(wildcards):
    """What an encoder is read from: a baseline needs the shape of the pretrained one, and no pretraining."""
    trained = wildcards.encoder == "trained"
    path = "pretrain/report.json" if trained else "initial/config.json"
    return made("pretrain", path)(wildcards)


def parts(step, path):
    """The files of a step's parts, as an input function; none where the step is one job."""
    count = config["shards"].get(step, 1)
    names = [f"{part:05d}-of-{count:05d}" for part in range(count)] if count > 1 else []
    return lambda wildcards: [path.format(part=name, **wildcards) for name in names]


def shard(wildcards):
    """Which part of how many, as the command takes it."""
    return f"{int(wildcards.part)}/{int(wildcards.parts)}"


def encoder_source(wildcards, input):
    """Which encoder makes the latents: the pretrained one, its untrained twin, or none but the pixels."""
    folder = str(Path(input.encoder).parent)
    return folder if wildcards.encoder == "trained" else f"{wildcards.encoder}:{folder}"


def reports(wildcards):
    """All that a run's page is drawn from, in the order of the chain: what was recorded and stored, and every report."""
    wanted = [("collect", "recordings/collection.json")] if config["simulate"] else []
    wanted += [("ingest", f"{store}.zarr.json") for store in stores()]
    wanted.append(("pretrain", "pretrain/report.json"))
    if HAS_LABELS:
        wanted.append(("probe", "probe/report.json"))
    if HAS_ROBOT:
        wanted += [("precompute", f"latents/{encoder}.h5") for encoder in ENCODERS]
        wanted += [
            ("posttrain", f"posttrain/{encoder}/report.json") for encoder in ENCODERS
        ]
        wanted += [("validate", f"validate/{encoder}.json") for encoder in ENCODERS]
    if config["simulate"]:
        wanted += [
            ("evaluate", f"evaluate/{encoder}/report.json") for encoder in ENCODERS
        ]
    return [made(step, path)(wildcards) for step, path in wanted]


def other_runs(wildcards):
    """The summaries of a sweep's runs, for the page of the run without a name."""
    return (
        []
        if run_of(wildcards)
        else [f"{RESULTS}/runs/{run}/summary.json" for run in RUNS if run]
    )


def comparison(wildcards, input):
    """The option that names them."""
    return " ".join(f"--compare {shlex.quote(file)}" for file in input.others)


def benchmarks(wildcards):
    """The options that name where the time and memory of a run's jobs are kept: its own folder and those it shares."""
    folders = dict.fromkeys(home(step, run_of(wildcards)) for step in STEPS)
    return " ".join(
        f"--benchmarks {shlex.quote(str(Path(folder, 'benchmarks')))}"
        for folder in folders
    )


def stores():
    """The video stores of this run."""
    return (["videos"] if config["videos"] else []) + (["robot"] if HAS_ROBOT else [])
