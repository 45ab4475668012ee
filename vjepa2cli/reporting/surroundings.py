"""What stands around the results: the data they rest on, the time they took, and what the page was not given."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from vjepa2cli.reporting import page
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.usage import Usage, usage_table

_SHOWN_REFUSALS = 12
_WANTED = {
    "evaluation": "success rates in closed loop (vjepa2 evaluate)",
    "posttrain": "how the world model was trained (vjepa2 posttrain)",
    "validation": "the verdict on held-out recordings (vjepa2 validate)",
    "probe": "what a probe reads from the features (vjepa2 probe)",
    "pretrain": "how the encoder was trained (vjepa2 pretrain)",
    "store": "the video store (vjepa2 ingest)",
}


def data(sources: Sequence[Source]) -> str:
    """The stores and collections."""
    parts = [*map(_store, of_kind(sources, "store")), *map(_collection, of_kind(sources, "collection"))]
    return page.section("data", "Data", *parts) if parts else ""


def _store(source: Source) -> str:
    body = source.body
    facts = {
        "videos": f"{sum(body['videos'].values())} ({body['videos']['train']} to train, {body['videos']['val']} held out)",
        "frames": f"{body['frames']:,}".replace(",", " ") + f", {body['seconds'] / 60:.1f} minutes",
        "size": ", ".join(body["sizes"]) or "–",
        "with a robot's trajectory": f"{body['trajectories']} {'(' + ', '.join(body['robots']) + ')' if body['robots'] else ''}",
        "labelled windows": f"{body['windows']}, classes: {', '.join(body['labels'])}" if body["labels"] else "none",
    }
    refused = [f"{item['source']}: {item['reason']}" for item in body["refused"]]
    listed = (
        f"<h3>{len(refused)} refused</h3>{page.bullets(_first(refused))}" if refused else page.paragraph("No file was refused.")
    )
    return f"<h3><code>{page.text(source.name)}</code></h3>{_facts(facts)}{listed}"


def _collection(source: Source) -> str:
    facts = {"episodes": str(len(source.body["episodes"]))}
    settings: Mapping[str, object] = source.provenance.get("config") or {}
    facts |= {
        name.replace("_", " "): str(settings[name]) for name in ("frames_per_episode", "image_size", "rate") if name in settings
    }
    windows = source.body.get("motion_windows") or {}
    if windows:
        facts["motion windows"] = ", ".join(f"{label} {count}" for label, count in windows.items())
    return f"<h3><code>{page.text(source.name)}</code></h3>{_facts(facts)}"


def _facts(facts: Mapping[str, str]) -> str:
    return page.table(("", ""), [(page.text(name), page.text(value)) for name, value in facts.items()])


def _first(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - _SHOWN_REFUSALS
    return [*lines[:_SHOWN_REFUSALS], *([f"and {rest} more"] if rest > 0 else [])]


def timing(sources: Sequence[Source], usage: Sequence[Usage] = ()) -> str:
    """Wall times and memory, which differ from run to run and are no part of the page's digest."""
    rows = [(page.text(source.name), page.text(part), value) for source in sources for part, value in _times(source)]
    if not rows and not usage:
        return ""
    total = sum(float(source.timing["seconds"]) for source in sources if "seconds" in source.timing)
    lead = (
        f"Seconds on the machine that ran each step; {total / 60:.1f} minutes in all. A resumed run counts from where it resumed."
    )
    return page.section(
        "timing",
        "Time and memory",
        page.paragraph(lead, kind="lead"),
        usage_table(usage),
        page.folded("By part of each step", page.table(("artefact", "", "seconds"), rows, numbers=[2])),
    )


def _times(source: Source) -> Iterator[tuple[str, str]]:
    for part, seconds in sorted(source.timing.items()):
        yield part.replace("_", " "), f"{float(seconds):.3g}" if seconds < 100 else f"{float(seconds):.0f}"
    steps = [float(row["seconds"]) for row in source.metrics if "seconds" in row]
    if steps:
        yield "median seconds per step", f"{median(steps):.3g}"


def missing(sources: Sequence[Source], absent_media: Sequence[Path]) -> str:
    """What was not given to the page, or was not whole."""
    kinds = {source.kind for source in sources}
    lines = [f"Not given: {words}." for kind, words in _WANTED.items() if kind not in kinds]
    for kind in ("evaluation", "posttrain"):
        seen = {source.encoder for source in sources if source.kind == kind}
        lines += [f"No {kind} of {name} was given." for key, name in _BASELINES.items() if kind in kinds and key not in seen]
    left = (source for source in sources if not source.ended and not source.running)
    lines += [f"{source.name} has not ended; run its step again, it goes on." for source in left]
    lines += [f"{path} is named by its report, but is not there." for path in absent_media]
    return page.section("missing", "Not on this page", page.bullets(lines)) if lines else ""


_BASELINES = {"trained": "the trained encoder", "untrained": "an untrained encoder", "pixels": "raw pixels"}
