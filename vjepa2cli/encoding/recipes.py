"""How an input becomes rows of features: the config, checked against the encoder and with every default filled in."""

from dataclasses import dataclass
from typing import Literal

from vjepa2cli.errors import ConfigError
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.settings import EncodeConfig
from vjepa2cli.tokens import TokenGrid

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """Numbers of frames and pixels are whole windows, tubelets and patches; `layers` count from 0, none means the output."""

    mode: Literal["tokens", "pooled", "per-frame", "window"]
    num_frames: int
    stride: int
    fps: float | None
    crop: tuple[int, int]
    layers: tuple[int, ...]
    precision: Precision
    tubelet_size: int
    patch_size: int
    has_image_tokenizer: bool

    @property
    def fused(self) -> bool:
        """Whether a time step is the mean of all windows that hold it."""
        return self.mode != "pooled" and self.stride < self.num_frames

    @property
    def names(self) -> list[str]:
        """The array of each layer."""
        name = "tokens" if self.mode in ("tokens", "window") else "features"
        return [f"{name}_layer{layer}" for layer in self.layers] or [name]

    def tubelet_of(self, *, still: bool) -> int:
        """Frames of a time step: V-JEPA 2.1 has a tokenizer for images; any other encoder sees a tubelet of copies."""
        return 1 if still and self.has_image_tokenizer else self.tubelet_size

    def grid(self, num_frames: int) -> TokenGrid:
        """The token grid of a window of so many frames."""
        tubelet = 1 if num_frames == 1 and self.has_image_tokenizer else self.tubelet_size
        return TokenGrid.from_pixels(num_frames, *self.crop, patch_size=self.patch_size, tubelet_size=tubelet)


def make_recipe(config: EncodeConfig, encoder: FrameEncoder, *, precision: Precision) -> Recipe:
    """Raises ConfigError for a size that is not a multiple of the encoder's, a stride that the mode has no use for, and layers
    that it does not have."""
    spec = encoder.spec
    crop = config.crop or spec.crop
    height, width = (crop, crop) if isinstance(crop, int) else crop
    stride = config.stride or config.num_frames // (2 if config.mode == "window" else 1)
    sizes = [("crop", height, spec.patch_size), ("crop", width, spec.patch_size)]
    sizes += [("num_frames", config.num_frames, spec.tubelet_size)]
    if config.stride is None:
        stride += -stride % spec.tubelet_size
    elif config.mode != "pooled":
        sizes += [("stride", stride, spec.tubelet_size)]
    for name, size, unit in sizes:
        if size % unit:
            raise ConfigError(
                f"{name}: {size} is not a multiple of {unit}, the encoder's; set it to {max(1, size // unit) * unit}"
            )
    if config.mode == "tokens" and stride != config.num_frames:
        raise ConfigError(f"stride: {stride}: mode tokens covers every frame once; for overlapping windows set mode to window")
    if config.mode != "pooled" and stride > config.num_frames:
        raise ConfigError(
            f"stride: {stride} leaves frames out between windows of {config.num_frames}; lower it, or set mode to pooled"
        )
    return Recipe(
        mode=config.mode,
        num_frames=config.num_frames,
        stride=stride,
        fps=config.fps,
        crop=(height, width),
        layers=_layers(config, encoder),
        precision=precision,
        tubelet_size=spec.tubelet_size,
        patch_size=spec.patch_size,
        has_image_tokenizer=isinstance(encoder, EncoderV21),
    )


def _layers(config: EncodeConfig, encoder: FrameEncoder) -> tuple[int, ...]:
    depth = getattr(encoder.spec, "depth", 0)
    known = encoder.spec.level_layers if isinstance(encoder, EncoderV21) else tuple(range(depth))
    layers = tuple(layer + depth if layer < 0 else layer for layer in config.layers)
    for given, layer in zip(config.layers, layers, strict=True):
        if layer not in known:
            allowed = ", ".join(map(str, known)) if isinstance(encoder, EncoderV21) else f"0 to {depth - 1}"
            raise ConfigError(f"layers: {given} is no block whose features this encoder gives; give of {allowed or 'none'}")
        if layers.count(layer) > 1:
            raise ConfigError(f"layers: {layer} is named twice (negative numbers count from the end); name each once")
    return layers
