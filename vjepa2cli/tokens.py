"""TokenGrid: how a clip of pixels is cut into tubelets, and how a flat token id names one of them."""

from dataclasses import dataclass
from typing import Any

from vjepa2cli.errors import InputError


@dataclass(frozen=True)
class TokenGrid:
    """A grid of `t` tubelets in time by `h` rows by `w` columns; ids count columns fastest and time slowest.

    Source: Assran et al. 2025 (arXiv:2506.09985), section 2.
    """

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.t, self.h, self.w) < 1:
            raise InputError(f"token grid {self.t}x{self.h}x{self.w} is empty; each side must be at least 1")

    @classmethod
    def from_pixels(cls, frames: int, height: int, width: int, *, patch_size: int = 16, tubelet_size: int = 2) -> "TokenGrid":
        """The grid of a clip in pixels; raises InputError where a side is not a whole number of patches or tubelets."""
        for name, size, unit in (("frames", frames, tubelet_size), ("height", height, patch_size), ("width", width, patch_size)):
            if size < unit or size % unit:
                raise InputError(f"{name}: {size} is not a positive multiple of {unit}; crop or resample the clip")
        return cls(frames // tubelet_size, height // patch_size, width // patch_size)

    @property
    def num_tokens(self) -> int:
        """N = t * h * w."""
        return self.t * self.h * self.w

    @property
    def tokens_per_frame(self) -> int:
        """Tokens in one time step, h * w."""
        return self.h * self.w

    def positions(self, ids: Any) -> tuple[Any, Any, Any]:
        """(t, row, column) of flat ids; works on ints, NumPy arrays and torch tensors alike."""
        in_frame = ids % self.tokens_per_frame
        return ids // self.tokens_per_frame, in_frame // self.w, in_frame % self.w
