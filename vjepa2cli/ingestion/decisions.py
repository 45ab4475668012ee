"""What is decided when all entries are there: which are left out and why, which side of the split they fall on, their weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vjepa2cli.files import digest_json
from vjepa2cli.ingestion.copies import Copies, Entries, find_copies
from vjepa2cli.settings import IngestConfig

# From which share of its time on an entry counts as black or frozen.
_MOSTLY = 0.9


@dataclass(frozen=True)
class Decisions:
    """`listed` says of each entry that stays, by key, what the store keeps of it; `dropped` gives the others and why.

    `remarks` are about rows of a mixture, each with the `source` that it concerns.
    """

    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    remarks: list[dict[str, str]] = field(default_factory=list)


def decide(entries: Entries, config: IngestConfig) -> Decisions:
    """Decide over all finished entries, by their keys; depends on nothing else."""
    copies = find_copies(entries)
    findings = {key: _findings(key, copies, entries) for key, item in entries.items()}
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
    return Decisions(listed, dropped, _rows_on_one_side(entries, splits, config))


def _findings(key: str, copies: Copies, entries: Entries) -> dict[str, str]:
    """What a user may want to know of an entry, by the name of the setting that drops it, if one does."""
    found, item = {}, entries[key]
    if key in copies.alike:
        found["alike"] = f"looks like {entries[copies.alike[key]]['source']}, but differs in places"
    if key in copies.undecided:
        other = entries[copies.undecided[key]]
        found["undecided"] = f"looks like {other['source']}; whether it differs in places only ingest with --replace can tell"
    if key in copies.certain:
        other = entries[copies.certain[key]]
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
    settings = {"duplicates": config.drop.duplicates, "black": config.drop.black, "frozen": config.drop.frozen}
    return settings.get(kind, False)


def _splits(kept: Entries, groups: Mapping[str, str], config: IngestConfig) -> dict[str, str]:
    """train or val by key: whole groups, ranked by a hash, separately for each kind so that each has both.

    Of each row of a mixture some group stays in train, or its share of the draws would be lost.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for key, item in kept.items():
        members.setdefault(groups[key], []).append(item)
    kinds: dict[tuple[str, bool, bool], list[str]] = {}
    for group, items in members.items():
        robot = max(item["robot"] or "" for item in items)
        labelled, still = any(item["windows"] for item in items), all(item["still"] for item in items)
        kinds.setdefault((robot, labelled, still), []).append(group)
    rows = {group: {item["share"]["group"] for item in items if item.get("share")} for group, items in members.items()}
    left = Counter(row for of_group in rows.values() for row in of_group)
    held_out: set[str] = set()
    for found in kinds.values():
        ranked = sorted(found, key=lambda group: digest_json([config.split_seed, group]))
        count = round(config.val_fraction * len(ranked))
        if 0 < config.val_fraction < 1:
            count = min(max(count, 1), len(ranked) - 1)
        for group in ranked:
            if count and (config.val_fraction == 1 or all(left[row] > 1 for row in rows[group])):
                held_out.add(group)
                left.subtract(rows[group])
                count -= 1
    return {key: "val" if groups[key] in held_out else "train" for key in kept}


def _rows_on_one_side(entries: Entries, kept: Mapping[str, str], config: IngestConfig) -> list[dict[str, str]]:
    """What is to be said of rows of a mixture that training or validation has nothing of, each by its first source."""
    rows: dict[str, list[str]] = {}
    for key in sorted(entries, key=lambda key: entries[key]["source"]):
        if entries[key].get("share"):
            rows.setdefault(entries[key]["share"]["group"], []).append(key)
    remarks = []
    for keys in rows.values():
        first, sides = entries[keys[0]], {kept.get(key) for key in keys}
        row = f"its row of the mixture, of weight {first['share']['weight']:g},"
        if "train" not in sides:
            why = "all it names is held out" if "val" in sides else "all it names is dropped"
            remarks.append({"source": first["source"], "note": f"{row} is never drawn in training: {why}"})
        elif "val" not in sides and config.val_fraction > 0:
            remarks.append({"source": first["source"], "note": f"{row} is all trained on, and nothing of it held out"})
    return remarks


def _groups(entries: Entries, copies: Copies) -> dict[str, str]:
    """What must share a side of the split: an episode, and with it the episodes of which it holds a copy, or may hold one."""
    held = copies.certain | copies.undecided
    above = {item["episode"]: item["episode"] for item in entries.values()}

    def top(episode: str) -> str:
        while above[episode] != episode:
            episode = above[episode]
        return episode

    for key in sorted(held):
        above[top(entries[key]["episode"])] = top(entries[held[key]]["episode"])
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
