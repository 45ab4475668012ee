"""What is decided when all entries are there: which are left out and why, which side of the split they fall on, their weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vjepa2cli.data.looks import Signature
from vjepa2cli.files import digest_json
from vjepa2cli.settings import IngestConfig

# From which share of its time on an entry counts as black or frozen.
_MOSTLY = 0.9
# Copies may lose a frame at either end.
_SECONDS_APART = 0.15

Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Decisions:
    """`listed` says of each entry that stays, by key, what the store keeps of it; `dropped` gives the others and why."""

    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def decide(entries: Entries, config: IngestConfig) -> Decisions:
    """Decide over all finished entries, by their keys; depends on nothing else."""
    copies = find_copies(entries)
    findings = {key: _findings(item, copies.get(key), entries) for key, item in entries.items()}
    dropped = {}
    for key, found in findings.items():
        reasons = [text for kind, text in found.items() if _is_dropped(kind, config)]
        if config.drop.shorter_than > entries[key]["seconds"] and not entries[key]["still"]:
            reasons.append(f"{entries[key]['seconds']:.2f} s, shorter than {config.drop.shorter_than:g} s")
        if reasons:
            dropped[key] = f"dropped: {', '.join(reasons)}"
    kept = {key: item for key, item in entries.items() if key not in dropped}
    splits = _splits(kept, _groups(entries, copies), config)
    weights = _weights(kept, splits)
    listed = {
        key: {"split": splits[key], "weight": weights.get(key), "findings": list(findings[key].values())} for key in sorted(kept)
    }
    return Decisions(listed, dropped)


def find_copies(entries: Entries) -> dict[str, str]:
    """For each entry that shows what another one shows, the key of the one that stands for both.

    The first by source name stands for all, one with labels before those without. Found by equal frames, or by what the entries
    look like at eight instants; copies that are cut, turned or mirrored are not found.
    """
    copies: dict[str, str] = {}
    buckets: dict[Any, list[str]] = {}
    signatures: dict[str, Signature] = {}
    for key in sorted(entries, key=lambda key: (not entries[key]["windows"], entries[key]["source"], key)):
        item = entries[key]
        signature = signatures[key] = Signature.parse(item["signature"])
        kind = (item["still"],)
        places = [(*kind, item["pixels_digest"], item["num_frames"]), *((*kind, *band) for band in signature.bands())]
        for other in dict.fromkeys(other for place in places for other in buckets.get(place, ())):
            if _show_the_same(item, entries[other], signature, signatures[other]):
                copies[key] = other
                break
        else:
            for place in places:
                buckets.setdefault(place, []).append(key)
    return copies


def _show_the_same(one: Mapping[str, Any], other: Mapping[str, Any], signature: Signature, others: Signature) -> bool:
    longer = max(one["seconds"], other["seconds"])
    if abs(one["seconds"] - other["seconds"]) > max(_SECONDS_APART, 0.02 * longer):
        return False
    return signature.resembles(others)


def _findings(item: Mapping[str, Any], copy_of: str | None, entries: Entries) -> dict[str, str]:
    """What a user may want to know of an entry, by the name of the setting that drops it."""
    found = {}
    if copy_of is not None:
        other = entries[copy_of]
        how = (
            "the same file as"
            if item["source_digest"] == other["source_digest"]
            else "the same frames as"
            if item["pixels_digest"] == other["pixels_digest"]
            else "looks the same as"
        )
        found["duplicates"] = f"{how} {other['source']}"
    if item["black"] >= _MOSTLY:
        found["black"] = f"black for {item['black']:.0%} of its time"
    elif item["frozen"] >= _MOSTLY:
        found["frozen"] = f"frozen for {item['frozen']:.0%} of its time"
    return found


def _is_dropped(kind: str, config: IngestConfig) -> bool:
    return {"duplicates": config.drop.duplicates, "black": config.drop.black, "frozen": config.drop.frozen}[kind]


def _splits(kept: Entries, groups: Mapping[str, str], config: IngestConfig) -> dict[str, str]:
    """train or val by key: whole groups, ranked by a hash, separately for each kind so that each has both."""
    members: dict[str, list[Mapping[str, Any]]] = {}
    for key, item in kept.items():
        members.setdefault(groups[key], []).append(item)
    kinds: dict[tuple[str, bool, bool], list[str]] = {}
    for group, items in members.items():
        robot = max(item["robot"] or "" for item in items)
        labelled, still = any(item["windows"] for item in items), all(item["still"] for item in items)
        kinds.setdefault((robot, labelled, still), []).append(group)
    held_out: set[str] = set()
    for found in kinds.values():
        ranked = sorted(found, key=lambda group: digest_json([config.split_seed, group]))
        count = round(config.val_fraction * len(ranked))
        if 0 < config.val_fraction < 1:
            count = min(max(count, 1), len(ranked) - 1)
        held_out.update(ranked[:count])
    return {key: "val" if groups[key] in held_out else "train" for key in kept}


def _groups(entries: Entries, copies: Mapping[str, str]) -> dict[str, str]:
    """What must share a side of the split: an episode, and with it the episodes of which it holds a copy."""
    above = {item["episode"]: item["episode"] for item in entries.values()}

    def top(episode: str) -> str:
        while above[episode] != episode:
            episode = above[episode]
        return episode

    for key in sorted(copies):
        above[top(entries[key]["episode"])] = top(entries[copies[key]]["episode"])
    return {key: top(item["episode"]) for key, item in entries.items()}


def _weights(entries: Entries, splits: Mapping[str, str]) -> dict[str, float]:
    """The share of a group, evenly over its entries, on each side of the split by itself."""
    groups = {key: (item["share"]["group"], splits[key]) for key, item in entries.items() if item.get("share")}
    sizes = Counter(groups.values())
    return {key: entries[key]["share"]["weight"] / sizes[group] for key, group in groups.items()}


def unweighted_beside_weighted(entries: Entries) -> Sequence[str]:
    """Sources without a weight, where others have one."""
    without = [item["source"] for item in entries.values() if not item.get("share")]
    return without if len(without) < len(entries) else []
