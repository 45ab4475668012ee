"""What a world model says of itself, who trained it on what and how it wants its frames, and the one way to open it."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vjepa2cli.artifacts.model_dir import read_model_config
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.errors import ArtifactError, PlanningError
from vjepa2cli.models.ac_predictor import AcPredictor
from vjepa2cli.models.checkpoints import read_checkpoint
from vjepa2cli.models.weights import encoder_digest, load_ac_predictor, load_world_model_parts, state_digest
from vjepa2cli.models.world_model import FrameEncoder, WorldModel
from vjepa2cli.registry import in_place

_BASELINES = ("untrained", "pixels")


@dataclass(frozen=True)
class ModelCard:
    """The record beside an AC predictor's weights; `rate` in Hz, `preprocessing` the crop in pixels and the geometry.

    `encoder` is `trained`, or one of the baselines `untrained` and `pixels`. A released checkpoint keeps no record: its
    `trained_steps`, `rate` and `robot` may be None, its `space` is an end effector's, and it is taken as trained.
    """

    source: str
    digest: str
    encoder: str
    encoder_source: str
    encoder_digest: str
    preprocessing: dict[str, Any]
    trained_steps: int | None
    rate: float | None
    robot: str | None
    space: StateSpace

    def require_trained_predictor(self) -> None:
        """Raise PlanningError where nobody trained the predictor; its encoder may be a baseline."""
        if self.trained_steps == 0:
            raise PlanningError(
                f"{self.source}: nobody trained this model (trained_steps: 0), so its plan would mean nothing; "
                "give the run directory of a 'vjepa2 posttrain' that has ended"
            )

    def require_trained(self) -> None:
        """Raise PlanningError where nobody trained the predictor or the encoder."""
        self.require_trained_predictor()
        if self.encoder != "trained":
            raise PlanningError(
                f"{self.source}: its encoder {self.encoder_source!r} is the baseline {self.encoder!r}, which nobody trained; "
                "post-train on the latents of a pretrained encoder to plan ('vjepa2 evaluate' takes baselines)"
            )

    def to_tree(self) -> dict[str, Any]:
        """The card as plain JSON types, without the path, so that a report does not depend on where the model lies."""
        tree = asdict(self)
        del tree["source"], tree["space"]
        return tree


def load_world_model(source: str | Path, *, device: torch.device | str = "cpu") -> WorldModel:
    """Load the encoder and the AC predictor of a run directory, a model folder or a released checkpoint, ready for uint8 frames.

    Raises WeightsError where one of them is not found, does not fit, or is not the one that it was trained with.
    """
    return open_world_model(source, device=device)[0]


def open_world_model(source: str | Path, *, device: torch.device | str = "cpu") -> tuple[WorldModel, ModelCard]:
    """A world model with its card; see `load_world_model`."""
    encoder, ac, about = load_world_model_parts(source, device)
    card = _card(source, ac, about, encoder)
    preprocessing = card.preprocessing
    transform = partial(frame_transform, crop=preprocessing["crop"], geometry=preprocessing["geometry"])
    return WorldModel(encoder, ac, preprocessing=preprocessing, compose=card.space.compose, transform=transform), card


def open_predictor(source: str | Path, *, device: torch.device | str = "cpu") -> tuple[WorldModel, ModelCard]:
    """A world model for latents, with its card: the encoder is left out where the model folder names it."""
    about = dict(read_checkpoint(source).config.get("vjepa2cli", {}))
    if "encoder" not in about:
        return open_world_model(source, device=device)
    ac = load_ac_predictor(source, device=device)
    card = _card(source, ac, about, None)
    return WorldModel(None, ac, preprocessing=card.preprocessing, compose=card.space.compose), card


def read_state_space(source: str | Path) -> StateSpace:
    """What the states of a model are, told without reading its weights: whoever says nothing has an end effector's."""
    try:
        about = read_model_config(Path(source)).get("vjepa2cli", {})
    except ArtifactError:
        # A bare checkpoint, or nothing at all, of which its loader will tell.
        about = {}
    return StateSpace.parse(about.get("state_space"))


def _card(source: str | Path, ac: AcPredictor, about: dict[str, Any], encoder: FrameEncoder | None) -> ModelCard:
    named = about.get("encoder")
    if named is None:
        assert encoder is not None
        named = {"source": str(source), "digest": encoder_digest(encoder)}
    # A released checkpoint was trained on the wide geometry; see the transform of the same name.
    crop = encoder.spec.crop if encoder is not None else None
    return ModelCard(
        source=str(source),
        digest=state_digest(ac),
        encoder=_encoder_kind(named["source"], Path(source)),
        encoder_source=named["source"],
        encoder_digest=named["digest"],
        preprocessing=about.get("preprocessing", {"crop": crop, "geometry": "wide"}),
        trained_steps=about.get("trained_steps"),
        rate=about.get("rate"),
        robot=about.get("robot"),
        space=StateSpace.parse(about.get("state_space")),
    )


def _encoder_kind(source: str, beside: Path) -> str:
    """A baseline by its prefix, or by its folder, looked for where the loader does: a pretraining of no steps trains nothing."""
    prefix, _, rest = source.rpartition(":")
    if prefix in _BASELINES:
        return prefix
    beside = Path(in_place(beside)).absolute()
    places = (Path(in_place(rest)), *(above / rest for above in (beside, *beside.parents)))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return "trained"
    about = read_model_config(folder).get("vjepa2cli", {})
    return "untrained" if about.get("trained_steps") == 0 else "trained"
