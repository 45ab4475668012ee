"""Where the features of each input go: one file, a folder of files, or a store with a group for each input."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts import feature_stores
from vjepa2cli.artifacts.feature_files import SUFFIXES, FeatureWriter, create, read_blocks, read_header
from vjepa2cli.encoding.sources import Source
from vjepa2cli.errors import InputError

Suffix = Literal[".npz", ".safetensors", ".h5", ".zarr"]
_STORES = (".h5", ".zarr")


class Targets:
    """`single` is one file; otherwise `out` is a folder of files of `suffix`, or, if it ends in .h5 or .zarr, a store."""

    def __init__(self, out: Path, *, suffix: str, single: bool) -> None:
        self.out, self.suffix, self.single = out, suffix, single
        self._has_begun = False

    @property
    def is_store(self) -> bool:
        """Whether all inputs go to one .h5 or .zarr."""
        return not self.single and self.out.suffix in _STORES

    @property
    def report(self) -> Path:
        """Where the report of a run over several inputs goes."""
        return self.out.with_suffix(".encoding.json") if self.is_store else self.out / "encoding.json"

    @property
    def _parts(self) -> Path:
        """Finished inputs of an .h5 store, until all are there."""
        return self.out.with_name(f"{self.out.name}.parts")

    def path(self, source: Source) -> Path:
        """The file or folder that the features of an input are written to."""
        if self.single:
            return self.out
        if not self.is_store:
            return self.out / f"{source.name}{self.suffix}"
        return self._parts / f"{source.name}.h5" if self.suffix == ".h5" else self.out / source.name

    def shown(self, source: Source) -> str:
        """What a user is told of where they are."""
        return f"{self.out}/{source.name}" if self.is_store else str(self.path(source))

    def create(self, source: Source) -> FeatureWriter:
        """A writer for the features of an input; a .zarr of several says from now on that it is unfinished."""
        if self.is_store and self.suffix == ".zarr":
            if not self._has_begun:
                feature_stores.mark_zarr_store(self.out, complete=False)
            self._has_begun = True
            feature_stores.make_parents(self.out, source.name)
        return create(self.path(source), suffix=self.suffix)

    def headers(self, sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
        """The headers of the features that are there, by the name of the input."""
        stored = feature_stores.read_h5_headers(self.out) if self.is_store and self.suffix == ".h5" and self.out.exists() else {}
        found = {source.name: read_header(self.path(source), suffix=self.suffix) or stored.get(source.name) for source in sources}
        return {name: header for name, header in found.items() if header is not None}

    def finish(self) -> None:
        """Put a store together of what is finished."""
        if not self.is_store:
            return
        if self.suffix == ".zarr":
            if self.out.exists():
                feature_stores.mark_zarr_store(self.out, complete=True)
            return
        found = sorted(self._parts.rglob("*.h5")) if self._parts.is_dir() else []
        if found:
            names = [path.relative_to(self._parts).as_posix().removesuffix(".h5") for path in found]
            feature_stores.join_h5(self.out, dict(zip(names, found, strict=True)))
            shutil.rmtree(self._parts)

    def blocks(self, source: Source, name: str) -> Iterator[NDArray[np.float32]]:
        """An array of features that are finished, from its beginning, a few rows at a time."""
        if self.is_store and self.suffix == ".h5":
            return feature_stores.read_h5_blocks(self.out, f"{source.name}/{name}")
        return read_blocks(self.path(source), name, suffix=self.suffix)


def choose_targets(out: Path | None, *, single: Source | None, suffix: Suffix | None) -> Targets:
    """Where to write; raises InputError where the number of inputs, `out` and the format `suffix` do not fit, ArtifactError where
    something else is in the way."""
    if single is not None:
        out = out or Path(f"{Path(single.name).stem}{suffix or '.npz'}")
        if out.suffix not in SUFFIXES:
            raise InputError(f"{out}: features of one file are written as {', '.join(SUFFIXES)}; choose one of these suffixes")
    else:
        out = out or Path("features")
        if out.suffix in SUFFIXES and out.suffix not in _STORES:
            raise InputError(
                f"{out}: several inputs are written to a folder of {out.suffix} or to one .h5 or .zarr; name one of these"
            )
        if out.exists() and not out.is_dir() and out.suffix not in _STORES:
            raise InputError(f"{out}: is a file; several inputs are written to a folder or to one .h5 or .zarr")
    if suffix is not None and out.suffix in SUFFIXES and out.suffix != suffix:
        raise InputError(f"{out}: is not {suffix}, the format that was asked for; leave one of them away")
    if out.suffix in _STORES:
        feature_stores.refuse_other(out, store=single is None)
    return Targets(out, suffix=out.suffix if out.suffix in SUFFIXES else suffix or ".npz", single=single is not None)
