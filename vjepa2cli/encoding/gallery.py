"""Which pictures an encoding makes, where they go, and when: a basis that inputs share waits for the last of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.encoding.components import fit_basis
from vjepa2cli.encoding.pictures import Encoded, blocks_of, draw_components
from vjepa2cli.encoding.similarity import Point, check_visible, draw_similarity
from vjepa2cli.encoding.sources import Source
from vjepa2cli.errors import InputError


@dataclass(frozen=True)
class Pictures:
    """The pictures that are asked for: components at `pca`, of the `foreground` alone, by one basis that all inputs share;
    the `similarity` to a point, at `similarity_out`.
    """

    pca: Path | None = None
    foreground: bool = False
    shared: bool = False
    similarity: Point | None = None
    similarity_out: Path | None = None


class Gallery:
    """Draws what is asked for of each input, in the order of `show`; `drawn` lists the files."""

    def __init__(
        self, wanted: Pictures, sources: Sequence[Source], *, crop: int | tuple[int, int], single: bool, origin: dict[str, Any]
    ) -> None:
        """Raises InputError for a path whose suffix does not fit, a point outside of the crop, and one of several inputs."""
        self._wanted, self._single, self._origin = wanted, single, origin
        self._waiting: list[Encoded] = []
        self.drawn: list[str] = []
        first = sources[0]
        if single and wanted.pca is not None:
            _check_suffix(wanted.pca, "components are", still=first.still)
        if wanted.similarity is not None:
            if not single:
                raise InputError("similarity: a point belongs to one video; encode that one alone")
            self._similarity_out = wanted.similarity_out or Path(
                f"{Path(first.name).stem}.similarity{_suffix(still=first.still)}"
            )
            _check_suffix(self._similarity_out, "similarity is", still=first.still)
            check_visible(wanted.similarity, next(first.open())[1].shape[:2], crop=crop, name=first.name)

    def show(self, encoded: Encoded) -> None:
        """Draw one input, or keep it where the basis is that of all."""
        if self._wanted.similarity is not None:
            numbers = draw_similarity(self._similarity_out, encoded, self._wanted.similarity, origin=self._origin)
            self.drawn += [str(self._similarity_out), str(numbers)]
        if self._wanted.pca is not None:
            self._waiting.append(encoded)
            if not self._wanted.shared:
                self.close()

    def close(self) -> None:
        """Draw what waits for a shared basis."""
        if self._wanted.pca is None or not self._waiting:
            return
        basis = fit_basis(blocks_of(self._waiting), foreground=self._wanted.foreground)
        for encoded in self._waiting:
            path = self._wanted.pca if self._single else self._wanted.pca / f"{encoded.name}{_suffix(still=encoded.still)}"
            draw_components(path, encoded, basis)
            self.drawn.append(str(path))
        self._waiting.clear()


def _check_suffix(path: Path, what: str, *, still: bool) -> None:
    if path.suffix != _suffix(still=still):
        raise InputError(f"{path}: {what} drawn as .mp4 for a video and as .png for an image; choose that suffix")


def _suffix(*, still: bool) -> str:
    return ".png" if still else ".mp4"
