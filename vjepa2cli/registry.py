"""Model sizes and released checkpoints: plain data.

Source: README.md and src/hub/backbones.py of facebookresearch/vjepa2; parameter counts were measured on the released code. File
sizes are those that several people who have the files report; where nobody does, none is stated.

Licences: the README of facebookresearch/vjepa2 (section License) puts the project under MIT but for three files of video
augmentation, which are under Apache-2.0; it says nothing of the weights apart, and no licence lies beside the files. The cards on
the Hugging Face hub (https://huggingface.co/collections/facebook/v-jepa-2) state one for the weights: Apache-2.0 for the two
ViT-g encoders, MIT for ViT-L and for the classifiers; accounts of that of ViT-H differ.
"""

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vjepa2cli.errors import WeightsError

Family = Literal["2", "2-ac", "2.1", "probe"]

BASE_URL = "https://dl.fbaipublicfiles.com/vjepa2/"
"""What the URL of every released file begins with; a mirror stands in its place."""


@dataclass(frozen=True)
class ModelSize:
    """The shape of an encoder."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0


SIZES: dict[str, ModelSize] = {
    "tiny": ModelSize(192, 12, 3),
    "small": ModelSize(384, 12, 6),
    "base": ModelSize(768, 12, 12),
    "large": ModelSize(1024, 24, 16),
    "huge": ModelSize(1280, 32, 16),
    # ViT-g as released has 22 heads; the constructor of that name in the released code has 16 and was never released.
    "giant": ModelSize(1408, 40, 22, 48 / 11),
    # The ratio of V-JEPA 2.1; the older code misspelt the argument and built this size with a ratio of 4.
    "gigantic": ModelSize(1664, 48, 26, 64 / 13),
}


@dataclass(frozen=True)
class ReleasedPredictor:
    """The predictor that a released file holds, and how many parameters it has."""

    embed_dim: int
    depth: int
    num_heads: int
    parameters: int
    num_mask_tokens: int = 0


@dataclass(frozen=True)
class ReleasedProbe:
    """The attentive probe that a released file holds.

    Epic-Kitchens probes have three heads, so no one number of classes; nobody who can be cited says how many parameters.
    """

    dataset: str
    num_classes: int | None
    parameters: int | None
    depth: int = 4
    num_heads: int = 16


@dataclass(frozen=True)
class HubModel:
    """The copy that transformers loads: a repository of the Hugging Face hub at a revision, its licence, and its parameters.

    Its encoder was converted from `encoder`, the online network, where the official file is loaded by its moving average; so
    features of the two differ. That of a probe holds the encoder too.
    """

    repository: str
    revision: str
    licence: str
    parameters: int

    @property
    def name(self) -> str:
        """The last part of the repository, and the name of its folder in the cache."""
        return self.repository.rpartition("/")[2]


@dataclass(frozen=True)
class ReleasedModel:
    """One released file. crop in pixels, frames a clip; `checkpoint_key` names the encoder that the file is loaded by.

    encoder_parameters counts the encoder alone (for a probe, which holds no encoder: that of the encoder it reads); gigabytes is
    the size of the file, None where nobody who can be cited says it.
    """

    name: str
    url: str
    family: Family
    size: str
    crop: int
    frames: int
    checkpoint_key: str
    encoder_parameters: int
    predictor: ReleasedPredictor | None = None
    probe: ReleasedProbe | None = None
    licence: str = "MIT"
    gigabytes: float | None = None
    hub: HubModel | None = None

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def head_parameters(self) -> int | None:
        """Those of the predictor or the probe, None where nobody who can be cited says them."""
        head = self.predictor or self.probe
        return None if head is None else head.parameters

    @property
    def told_gigabytes(self) -> str:
        """The size of the file for people: as reported, `~` as the reported one of its kind is made up, `>` what it must hold.

        What is reported of vitl.pt and vjepa2-ac-vitg.pt is, in float32, two encoders, the predictor, and twice as much again as
        was trained, which AdamW keeps.
        """
        if self.gigabytes is not None:
            return f"{self.gigabytes:.1f}"
        if self.head_parameters is None:
            return "?"
        if self.family == "2":
            return f"~{4 * (4 * self.encoder_parameters + 3 * self.head_parameters) / 1e9:.0f}"
        held = self.head_parameters + (0 if self.family == "probe" else self.encoder_parameters)
        return f">{4 * held / 1e9:.1f}"


_LARGE, _HUGE, _GIANT = 303_885_312, 631_648_000, 1_012_173_952


def _encoder(
    name: str,
    file: str,
    size: str,
    crop: int,
    parameters: int,
    predictor_parameters: int,
    hub: HubModel,
    gigabytes: float | None = None,
) -> ReleasedModel:
    predictor = ReleasedPredictor(384, 12, 12, predictor_parameters, num_mask_tokens=10)
    url = BASE_URL + file
    return ReleasedModel(name, url, "2", size, crop, 64, "target_encoder", parameters, predictor, gigabytes=gigabytes, hub=hub)


def _encoder_2_1(
    name: str, file: str, size: str, key: str, parameters: int, predictor_depth: int, predictor_parameters: int
) -> ReleasedModel:
    predictor = ReleasedPredictor(384, predictor_depth, 12, predictor_parameters, num_mask_tokens=8)
    return ReleasedModel(name, BASE_URL + file, "2.1", size, 384, 64, key, parameters, predictor)


def _probe(
    name: str, file: str, size: str, crop: int, frames: int, probe: ReleasedProbe, hub: HubModel | None = None
) -> ReleasedModel:
    parameters, url = {"large": _LARGE, "giant": _GIANT}[size], f"{BASE_URL}evals/{file}"
    return ReleasedModel(name, url, "probe", size, crop, frames, "classifiers", parameters, probe=probe, hub=hub)


def _ssv2(parameters: int) -> ReleasedProbe:
    return ReleasedProbe("Something-Something v2", 174, parameters)


def _diving(parameters: int) -> ReleasedProbe:
    return ReleasedProbe("Diving48", 48, parameters)


_EK100 = ReleasedProbe("Epic-Kitchens-100", None, None)
_HUB = {
    name: HubModel(f"facebook/{name}", revision, licence, parameters)
    for name, revision, licence, parameters in (
        ("vjepa2-vitl-fpc64-256", "b3c1679b7c34d3255ef3547f27c7b226aefab26f", "MIT", 325_971_328),
        # Two accounts of this card differ.
        ("vjepa2-vith-fpc64-256", "b5eac8703e3efdc1547fbb6ddfbeb133dc0bdee5", "MIT or Apache-2.0", 653_930_880),
        ("vjepa2-vitg-fpc64-256", "875c192b7b704b87d1e1d99345769632dd5f739a", "Apache-2.0", 1_034_555_264),
        ("vjepa2-vitg-fpc64-384", "12ca91694b230e0d4b5b0078af6f4ae1d51e933d", "Apache-2.0", 1_034_555_264),
        ("vjepa2-vitl-fpc16-256-ssv2", "4aa02df83918538fc21cfaf576382fa20e489a80", "MIT", 375_485_998),
        ("vjepa2-vitl-fpc32-256-diving48", "71ae2a8b1ff5a297aeeaae9b5e64c7a2e5e6a633", "MIT", 375_356_848),
        ("vjepa2-vitg-fpc64-384-ssv2", "9f5fd615cb6f79065a28edcf1cc3ef25010dddfa", "MIT", 1_128_049_454),
        ("vjepa2-vitg-fpc32-384-diving48", "0b48243375319bd8e03e3cd5560d957095429189", "MIT", 1_127_871_920),
    )
}

_ROWS = (
    _encoder("vjepa2-vitl-256", "vitl.pt", "large", 256, _LARGE, 22_086_016, _HUB["vjepa2-vitl-fpc64-256"], gigabytes=5.1),
    _encoder("vjepa2-vith-256", "vith.pt", "huge", 256, _HUGE, 22_282_880, _HUB["vjepa2-vith-fpc64-256"]),
    _encoder("vjepa2-vitg-256", "vitg.pt", "giant", 256, _GIANT, 22_381_312, _HUB["vjepa2-vitg-fpc64-256"]),
    _encoder("vjepa2-vitg-384", "vitg-384.pt", "giant", 384, _GIANT, 22_381_312, _HUB["vjepa2-vitg-fpc64-384"]),
    ReleasedModel(
        "vjepa2-ac-vitg",
        BASE_URL + "vjepa2-ac-vitg.pt",
        "2-ac",
        "giant",
        256,
        64,
        "encoder",
        _GIANT,
        ReleasedPredictor(1024, 24, 16, 305_220_992),
        gigabytes=11.7,
    ),
    _encoder_2_1("vjepa2.1-vitb-384", "vjepa2_1_vitb_dist_vitG_384.pt", "base", "ema_encoder", 86_833_152, 12, 22_874_752),
    _encoder_2_1("vjepa2.1-vitl-384", "vjepa2_1_vitl_dist_vitG_384.pt", "large", "ema_encoder", 304_680_960, 12, 22_973_056),
    _encoder_2_1("vjepa2.1-vitg-384", "vjepa2_1_vitg_384.pt", "giant", "target_encoder", 1_013_267_968, 24, 55_400_704),
    _encoder_2_1("vjepa2.1-vitG-384", "vjepa2_1_vitG_384.pt", "gigantic", "target_encoder", 1_845_216_768, 24, 59_433_472),
    _probe("ssv2-vitl-256", "ssv2-vitl-16x2x3.pt", "large", 256, 16, _ssv2(49_514_670), _HUB["vjepa2-vitl-fpc16-256-ssv2"]),
    _probe(
        "diving48-vitl-256", "diving48-vitl-256.pt", "large", 256, 32, _diving(49_385_520), _HUB["vjepa2-vitl-fpc32-256-diving48"]
    ),
    _probe("ek100-vitl-256", "ek100-vitl-256.pt", "large", 256, 32, _EK100),
    _probe("ssv2-vitg-384", "ssv2-vitg-384-64x2x3.pt", "giant", 384, 64, _ssv2(93_494_190), _HUB["vjepa2-vitg-fpc64-384-ssv2"]),
    _probe(
        "diving48-vitg-384",
        "diving48-vitg-384-32x4x3.pt",
        "giant",
        384,
        32,
        _diving(93_316_656),
        _HUB["vjepa2-vitg-fpc32-384-diving48"],
    ),
    _probe("ek100-vitg-384", "ek100-vitg-384.pt", "giant", 384, 32, _EK100),
)

RELEASED: dict[str, ReleasedModel] = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class ShippedModel:
    """A network that comes with the package: the folder that it lies in, and what it is."""

    name: str
    folder: str
    about: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(__file__).parent / "weights" / self.folder

    @property
    def num_bytes(self) -> int:
        """The size of its weights, and of those of what lies in folders below."""
        return sum(file.stat().st_size for file in self.path.rglob("*.safetensors"))


SHIPPED: dict[str, ShippedModel] = {
    row.name: row
    for row in (
        ShippedModel("tabletop", "tabletop", "world model of the simulated tabletop arm"),
        ShippedModel("tabletop-encoder", "tabletop/frozen-encoder", "the encoder of that world model"),
    )
}


def in_place(source: str | Path) -> str | Path:
    """A source as it is, or the folder of the shipped network that it names; what lies there by that name comes first."""
    shipped = SHIPPED.get(str(source))
    return source if shipped is None or Path(source).exists() else shipped.path


_PUBLISHED = {
    # Accuracy in per cent; of Epic-Kitchens class-mean recall at 5 of verb, noun and action.
    "large 256": {"ssv2": 73.7, "diving48": 89.0, "jester": 97.6, "k400": 85.1, "coin": 86.8, "in1k": 83.5},
    "huge 256": {"ssv2": 74.0, "diving48": 89.8, "jester": 97.7, "k400": 85.3, "coin": 87.9, "in1k": 83.8},
    "giant 256": {"ssv2": 75.3, "diving48": 90.1, "jester": 97.7, "k400": 86.6, "coin": 90.7, "in1k": 84.6},
    "giant 384": {"ssv2": 77.3, "diving48": 90.2, "jester": 97.8, "k400": 87.3, "coin": 91.1, "in1k": 85.1},
}
_PUBLISHED_RECALL = {
    "large 256": (57.8, 53.8, 32.7),
    "huge 256": (59.2, 54.6, 36.5),
    "giant 256": (61.2, 55.7, 38.0),
    "giant 384": (63.6, 57.1, 39.7),
}


def published_scores(dataset: str) -> dict[str, float | tuple[float, ...]]:
    """What was published of V-JEPA 2 on a set, in per cent, by size and crop; empty where nothing was.

    Accuracy, or of "ek100" class-mean recall at 5 of verb, noun and action. Source: Assran et al. 2025 (arXiv:2506.09985).
    """
    if dataset == "ek100":
        return dict(_PUBLISHED_RECALL)
    return {name: scores[dataset] for name, scores in _PUBLISHED.items() if dataset in scores}


def size(name: str) -> ModelSize:
    """The encoder size of that name; raises WeightsError that names the nearest."""
    if name not in SIZES:
        raise WeightsError(f"size {name!r} is unknown;{suggestion(name, SIZES)}")
    return SIZES[name]


def released(name: str) -> ReleasedModel:
    """The released checkpoint of that name; raises WeightsError that names the nearest."""
    if name not in RELEASED:
        raise WeightsError(f"released model {name!r} is unknown;{suggestion(name, RELEASED)}")
    return RELEASED[name]


def released_file(file_name: str) -> ReleasedModel | None:
    """The released checkpoint that is published under that file name, if any."""
    return next((row for row in _ROWS if row.file_name == file_name), None)


def suggestion(word: str, known: Collection[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" did you mean {near[0]!r}?" if near else f" known: {', '.join(known)}"


def cache_folder() -> Path:
    """Where released files lie on this machine: $VJEPA2_HOME, else $XDG_CACHE_HOME/vjepa2cli, else ~/.cache/vjepa2cli."""
    home = os.environ.get("VJEPA2_HOME")
    if home:
        return Path(home)
    caches = os.environ.get("XDG_CACHE_HOME", "")
    # As the XDG specification has it: a relative path there is ignored.
    return (Path(caches) if Path(caches).is_absolute() else Path.home() / ".cache") / "vjepa2cli"


def local_copy(model: ReleasedModel) -> Path | None:
    """Where a released checkpoint lies on this machine: its official file, else its folder from the Hugging Face hub."""
    folder = cache_folder()
    if (folder / model.file_name).is_file():
        return folder / model.file_name
    if model.hub is not None and (folder / model.hub.name / "config.json").is_file():
        return folder / model.hub.name
    return None
