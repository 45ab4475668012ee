"""Somebody else's action sequences, read from a file to be ranked by a world model."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError

Actions = NDArray[np.float32]

_LAYOUT = "[proposals, steps, {width}]"


def read_proposals(path: Path, names: Sequence[str]) -> Actions:
    """Action sequences [n, H, A] of .npz (the array `actions`), .json (nested lists, alone or under "actions") or .csv.

    A CSV has the columns proposal, step and one for each of `names`, rows in any order. Raises InputError where it is none of
    these, where the sequences differ in length or width, and where a number is not finite.
    """
    readers = {".npz": _read_npz, ".json": _read_json, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: proposals come as {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        found = readers[path.suffix.lower()](path, names)
        actions = np.asarray(found, dtype=np.float32)
    except (ValueError, TypeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: is not readable as proposals ({' '.join(str(error).split())})") from None
    if actions.ndim != 3 or actions.shape[2] != len(names) or 0 in actions.shape:
        layout = _LAYOUT.format(width=len(names))
        raise InputError(f"{path}: holds numbers {list(actions.shape)}, needed are {layout}: {', '.join(names)}")
    if not np.isfinite(actions).all():
        worst = int(np.argwhere(~np.isfinite(actions))[0][0])
        raise InputError(f"{path}: proposal {worst} holds a value that is not finite; leave it out")
    return actions


def _read_npz(path: Path, _: Sequence[str]) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        if "actions" not in arrays:
            raise ValueError(f"it has the arrays {', '.join(arrays) or 'none'}, and none called 'actions'")
        return arrays["actions"]


def _read_json(path: Path, _: Sequence[str]) -> Any:
    tree = json.loads(path.read_text(encoding="utf-8"))
    return tree["actions"] if isinstance(tree, dict) and "actions" in tree else tree


def _read_csv(path: Path, names: Sequence[str]) -> Any:
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        lacking = [name for name in ("proposal", "step", *names) if name not in (table.fieldnames or ())]
        if lacking:
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        rows = [(int(row["proposal"]), int(row["step"]), [float(row[name]) for name in names]) for row in table]
    count = 1 + max((row[0] for row in rows), default=-1)
    length = 1 + max((row[1] for row in rows), default=-1)
    actions = np.full((count, length, len(names)), np.nan)
    for proposal, step, numbers in rows:
        actions[proposal, step] = numbers
    if len(rows) != count * length:
        raise ValueError(f"{len(rows)} rows are not {count} proposals of {length} steps each, both counted from 0")
    return actions
