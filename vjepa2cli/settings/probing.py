"""What `probe` sets: how clips are cut, the shape of the heads, which of them are trained, and how the result is judged."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section
from vjepa2cli.settings.training import HealthConfig, TrainingConfig

Decay = Annotated[float, Field(ge=0)]
Contestant = Literal["untrained", "pixels", "single-frame"]


class AugmentConfig(Section):
    """How training clips differ from evaluation clips: `copies` of each are encoded, each cut anew.

    One copy of a scale and an aspect ratio of 1 is the evaluation clip itself.
    """

    copies: Count = 1
    scale: tuple[Fraction, Fraction] = (1.0, 1.0)
    aspect_ratio: Range = (1.0, 1.0)
    horizontal_flip: Fraction = 0.0

    @property
    def is_none(self) -> bool:
        """Whether training looks at evaluation clips."""
        return self.copies == 1 and self.scale == (1.0, 1.0) and self.aspect_ratio == (1.0, 1.0) and not self.horizontal_flip


class AnticipationConfig(Section):
    """Name the action that begins `seconds` after the context ends, from the context and the predictor's tokens of that instant.

    The context ends `seconds` before the action's start (`anchor: start`), or, as in the released code, before its stop
    (`anchor: stop`). Training draws the time ahead from `train_seconds` and, with the anchor `stop`, the anchor from the last
    `train_point` share of the action. `released_ids` numbers the classes as the released probes do.
    """

    seconds: Positive = 1.0
    fps: Positive = 8.0
    anchor: Literal["start", "stop"] = "start"
    train_seconds: Range = (0.25, 1.75)
    train_point: Range = (0.0, 0.25)
    released_ids: bool = True


class ReleasedProtocolConfig(Section):
    """What the released evaluations do and ours does not, for comparison with their numbers.

    `random_clips`: evaluation clips lie anywhere in their segment, so a score is one draw of many. `best_head_on_val`: the head
    is the one that does best on the validation set, in anticipation one for each of verb, noun and action. `half_precision`:
    float16, which the released video and image evaluations compute in where their configs say bfloat16.
    """

    random_clips: bool = False
    best_head_on_val: bool = False
    half_precision: bool = False


class ProbeConfig(TrainingConfig):
    """Attentive probes on frozen features, one a learning rate and a weight decay, beside a linear one and nearest neighbours.

    A clip has `num_frames` frames, `frame_step` apart, or spread over its segment; a still image is repeated. At evaluation a
    video is `segments` clips, whose tokens a probe sees together, in `views` squares, over which its answers are averaged.
    `layers` are the blocks whose outputs it sees, none the encoder's own output. With `epochs`, `steps` follow from the number
    of training clips, and the learning rate falls to zero over all of them along a cosine. `balanced` draws classes evenly.
    `keep_heads` stops heads early: [[0.03, 5], [0.1, 1]] lets the five that are best on selection go on after 3 % of the steps,
    and one after 10 %; without it all are trained to the end. A class of fewer than `min_class_clips` training clips is refused;
    so is one of which training has none (`unseen`) and a file that is not there (`missing`), or they are dropped and counted.
    `shots` labels that many training clips of each class, drawn by the seed from as many videos as there are, and no others.
    """

    WATCHED: ClassVar[bool] = False
    """A head that diverges is left out by itself, and the others know nothing of it."""

    step: Literal["probe"] = "probe"
    health: HealthConfig = HealthConfig(spike_factor=1000.0)
    epochs: Positive | None = None
    balanced: bool = True
    num_frames: Count = 8
    frame_step: Count | None = None
    segments: Count = 1
    views: Count = 1
    crop: Annotated[int, Field(ge=16)] = 96
    layers: tuple[int, ...] = ()
    activation_checkpointing: bool = False
    depth: Count = 4
    num_heads: Count = 3
    baselines: tuple[Contestant, ...] = ("untrained", "pixels")
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3, 3e-4)
    weight_decays: Annotated[tuple[Decay, ...], Field(min_length=1)] = (0.04,)
    keep_heads: tuple[tuple[Fraction, Count], ...] = ()
    linear: bool = True
    neighbours: tuple[Count, ...] = (1, 5, 20)
    selection_fraction: Fraction = 0.2
    feature_batch: Count = 16
    augment: AugmentConfig = AugmentConfig()
    unseen: Literal["refuse", "drop"] = "refuse"
    missing: Literal["refuse", "drop"] = "refuse"
    min_class_clips: Count = 2
    shots: Count | None = None
    examples: Annotated[int, Field(ge=0)] = 6
    dataset: str | None = None
    anticipation: AnticipationConfig | None = None
    released_protocol: ReleasedProtocolConfig = ReleasedProtocolConfig()

    @property
    def head_settings(self) -> tuple[tuple[float, float], ...]:
        """Learning rate and weight decay of each head."""
        return tuple((rate, decay) for decay in self.weight_decays for rate in self.learning_rates)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.anticipation is not None and (self.segments, self.views) != (1, 1):
            raise ValueError("anticipation looks at one clip and one view; set segments: 1 and views: 1")
        if self.anticipation is not None and (self.baselines or self.layers):
            raise ValueError("anticipation reads an encoder's output and its predictor's; set baselines: [] and layers: []")
        return self
