"""Walking folders of recordings: sorted, through links, past what is hidden or unfinished, and never round in circles."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Yield (folder, names of the folders below it, its files), depth first; names taken out of the list are not entered."""
    seen: set[Path] = set()
    for place, below, names in os.walk(root, followlinks=True):
        folder = Path(place)
        if folder.resolve() in seen:
            below.clear()
            continue
        seen.add(folder.resolve())
        below[:] = sorted(name for name in below if not name.startswith(".") and not name.endswith((".partial", ".zarr")))
        yield folder, below, [folder / name for name in sorted(names) if not name.startswith(".")]
