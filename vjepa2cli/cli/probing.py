"""What `probe` is given: which recipe and which encoder belong to a released probe, and what a data set is read from."""

from collections.abc import Sequence
from pathlib import Path

from vjepa2cli import registry
from vjepa2cli.errors import InputError

_DATA = {
    "ssv2": "train.json validation.json --classes labels.json --root 20bn-something-something-v2",
    "k400": "train.csv val.csv --root k400",
    "diving48": "Diving48_V2_train.json Diving48_V2_test.json --root rgb",
    "jester": "jester-v1-train.csv jester-v1-validation.csv --classes jester-v1-labels.csv --root 20bn-jester-v1",
    "coin": "COIN.json --root videos",
    "in1k": "imagenet/train imagenet/val",
    "ek100": "EPIC_100_train.csv EPIC_100_validation.csv --root EPIC-KITCHENS",
}
"""What the published files of a set are called."""


def released_probe(weights: str | None) -> tuple[str | None, str | None]:
    """The recipe and the encoder of a released probe, by its name or that of its file; None for other probes."""
    if weights is None:
        return None, None
    row = registry.RELEASED.get(weights) or registry.released_file(Path(weights).name)
    if row is None or row.family != "probe":
        return None, None
    encoders = (one for one in registry.RELEASED.values() if (one.family, one.size, one.crop) == ("2", row.size, row.crop))
    return row.name, next(encoders).name


def require_probe_inputs(data: Sequence[Path] | None, weights: str | None, dataset: str | None, *, eval_only: bool) -> None:
    """Raise InputError where a probe has nothing to read, or is told half of what it is to do."""
    if eval_only and weights is None:
        raise InputError("--eval-only: judges a trained probe; name it with --weights")
    if weights is not None and not eval_only:
        raise InputError("--weights: names a trained probe, which is judged and not trained; add --eval-only")
    if not data:
        example = _DATA.get(dataset or "", "X.zarr")
        raise InputError(f"no data were named; give a video store, or the files of a set, such as: vjepa2 probe {example}")
