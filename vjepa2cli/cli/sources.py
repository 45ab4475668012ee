"""Where a `--model` comes from: a released checkpoint is brought here the first time it is named, and one line says so."""

from pathlib import Path

from vjepa2cli import registry
from vjepa2cli.cli import console
from vjepa2cli.progress import Progress
from vjepa2cli.ranks import is_leader

_BASELINES = ("untrained:", "pixels:")
_BARE_SUFFIXES = (".pt", ".pth", ".safetensors")


TRAINED = "results/posttrain/trained"
"""Where the default run leaves its world model."""
_SHIPPED = "tabletop"


def own_or_shipped(model: str | None) -> str:
    """The world model that is named; of none that of the default run, or before there is one the shipped one, which is told."""
    if model is not None or Path(TRAINED).exists():
        return model or TRAINED
    _tell(f"{TRAINED} is not here; taking the world model that is shipped, --model {_SHIPPED}: the simulated arm's")
    return _SHIPPED


def is_shipped(model: str) -> bool:
    """Whether a name means the shipped world model; a path of that name is somebody's own."""
    return model == _SHIPPED and not Path(model).exists()


def at_hand(source: str, progress: Progress) -> str:
    """`source` itself, once the released checkpoint that it names, or that its encoder is, lies on this machine.

    Raises WeightsError where it cannot be had, or where $VJEPA2_OFFLINE forbids to ask for it.
    """
    place = _without_baseline(source)
    for name in (place, _encoder_of(place)):
        if name in registry.RELEASED and not Path(name).exists():
            _fetch(registry.RELEASED[name], progress)
    _tell_own_encoder(place)
    return source


def _without_baseline(source: str) -> str:
    for prefix in _BASELINES:
        source = source.removeprefix(prefix)
    return source


def _fetch(model: registry.ReleasedModel, progress: Progress) -> None:
    from vjepa2cli.downloading import describe, is_offline, pull

    here = registry.local_copy(model)
    if here is None:
        if not is_offline():
            size = model.told_gigabytes
            _tell(f"{model.name} is not on this machine; downloading it ({size} GB) to {registry.cache_folder()}")
        pulled = pull(model.name, progress=progress)
        _tell(f"{model.name}: took {describe(model, pulled.origin)}")
    elif here.is_dir():
        _tell(f"{model.name}: takes {describe(model, 'hub')}")


def _tell(line: str) -> None:
    """Say it once, whatever the number of processes."""
    if is_leader():
        console.say(line)


def _encoder_of(place: str) -> str:
    """The encoder that a model folder of ours names, or ""."""
    from vjepa2cli.files import read_json

    configs = (folder / "config.json" for folder in (Path(place), Path(place) / "model"))
    config = next((path for path in configs if path.is_file()), None)
    named = read_json(config).get("vjepa2cli", {}).get("encoder", {}) if config is not None else {}
    return _without_baseline(str(named.get("source", "")))


def _tell_own_encoder(place: str) -> None:
    """Say that a world model in one file brings its encoder."""
    path, released = Path(place), registry.RELEASED.get(place)
    if path.is_file() and path.suffix in _BARE_SUFFIXES:
        from vjepa2cli.models.contents import read_contents

        held = {network.network for network in read_contents(path).networks}
        carries = "ac_predictor" in held and "encoder" in held
    else:
        carries = released is not None and released.family == "2-ac"
    if carries:
        _tell(f"{place}: carries its own encoder, which is taken; it is not that of a V-JEPA 2 checkpoint of the same size")
