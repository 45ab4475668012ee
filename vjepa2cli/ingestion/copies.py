"""Which entries show what another one shows, and which only look like it, as recordings by one fixed camera do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vjepa2cli.data.looks import COPY_BITS, Signature

# Copies may lose a frame at either end.
_SECONDS_APART = 0.15

Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Copies:
    """Keys of entries, each with the key of the one that it is set beside.

    The `certain` show the same. Those that are `alike` do so at first sight, but differ in places. Of the `undecided` that is not
    known, since one of the two was ingested by a version that did not look at what moves.
    """

    certain: dict[str, str] = field(default_factory=dict)
    alike: dict[str, str] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)


def find_copies(entries: Entries) -> Copies:
    """Compare all entries; the first by source name stands for all that show the same, one with labels before those without.

    Found by equal frames, or by what the entries look like and what moves in them; copies that are cut, turned or mirrored are
    not found.
    """
    found = Copies()
    known = {still: _Known(sum(item["still"] == still for item in entries.values())) for still in (True, False)}
    for key in sorted(entries, key=lambda key: (not entries[key]["windows"], entries[key]["source"], key)):
        item = entries[key]
        signature, among = Signature.parse(item["signature"]), known[item["still"]]
        alike: dict[bool | None, str] = {}
        for other, others in among.near(item, signature):
            verdict = _same_frames(item, entries[other]) or signature.is_copy_of(others)
            if verdict:
                found.certain[key] = other
                break
            if signature.resembles(others):
                alike.setdefault(verdict, other)
        else:
            among.add(key, item, signature)
            if None in alike:
                found.undecided[key] = alike[None]
            elif alike:
                found.alike[key] = alike[False]
    return found


def _same_frames(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["pixels_digest"] == other["pixels_digest"] and one["num_frames"] == other["num_frames"])


class _Known:
    """Entries that are no copies, found again by pieces of their signatures, or one by one where pieces tell little."""

    def __init__(self, capacity: int) -> None:
        self._keys: list[str] = []
        self._signatures: list[Signature] = []
        self._bits = np.empty((capacity, 32), np.uint64)
        self._seconds = np.empty(capacity)
        self._buckets: dict[Any, list[int]] = {}

    def add(self, key: str, item: Mapping[str, Any], signature: Signature) -> None:
        number = len(self._keys)
        self._keys.append(key)
        self._signatures.append(signature)
        self._bits[number], self._seconds[number] = signature.bits.view(np.uint64), item["seconds"]
        for band in signature.bands():
            self._buckets.setdefault(band, []).append(number)

    def near(self, item: Mapping[str, Any], signature: Signature) -> list[tuple[str, Signature]]:
        """Those that last as long and differ in few bits, in the order in which they came."""
        buckets = [self._buckets.get(band, []) for band in signature.bands()]
        # Recordings by one camera share nearly all pieces; then it is quicker to look at every entry once.
        every = sum(map(len, buckets)) >= len(self._keys)
        numbers = np.arange(len(self._keys)) if every else np.unique(np.concatenate([np.array(it, int) for it in buckets]))
        longer = np.maximum(self._seconds[numbers], item["seconds"])
        lasting = np.abs(self._seconds[numbers] - item["seconds"]) <= np.maximum(_SECONDS_APART, 0.02 * longer)
        numbers = numbers[lasting]
        differing = np.bitwise_count(self._bits[numbers] ^ signature.bits.view(np.uint64)).sum(axis=1, dtype=int)
        return [(self._keys[number], self._signatures[number]) for number in numbers[differing <= COPY_BITS]]
