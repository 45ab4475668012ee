"""Runs side by side: what each is summarised to, what differs between them, and what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vjepa2cli.artifacts.reports import read_report, write_report
from vjepa2cli.reporting import page
from vjepa2cli.reporting.evaluations import read_evaluations
from vjepa2cli.reporting.figures import ShareRow, shares
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.statistics import Share

KIND = "summary"
_HERE = "this page"
_STEPS = {"collection": "collect", "store": "ingest", "latents": "precompute", "evaluation": "evaluate", "validation": "validate"}


@dataclass(frozen=True)
class Run:
    """A run by name: its settings as `step.key: value`, and its results, each a share or a number, by what was measured."""

    name: str
    settings: Mapping[str, Any]
    results: Mapping[str, Share | float]


def summarise(sources: Sequence[Source]) -> dict[str, Any]:
    """What a run is in a comparison: the configs of its steps and the results of the trained encoder, as plain JSON types."""
    configs = {_STEPS.get(source.kind, source.kind): source.provenance.get("config") or {} for source in sources}
    return {"configs": configs, "results": {name: _plain(value) for name, value in _results(sources)}}


def write_summary(path: Path, sources: Sequence[Source]) -> Path:
    """Write the summary of a run, which the page of another may be given for comparison."""
    inputs = {source.name: str(source.body["digest"]) for source in sources if source.body.get("digest")}
    return write_report(path, KIND, summarise(sources), provenance={"inputs": inputs})


def read_runs(sources: Sequence[Source], others: Sequence[Path]) -> list[Run]:
    """The run of these sources and, by the names of their folders, those of the summaries; raises ArtifactError."""
    named = [(_HERE, summarise(sources)), *((path.resolve().parent.name, read_report(path, KIND)) for path in others)]
    return [
        Run(name, dict(_leaves(body["configs"])), {what: _result(value) for what, value in body["results"].items()})
        for name, body in named
    ]


def comparison(runs: Sequence[Run]) -> str:
    """What differs between the runs, their results in a table and as bars, and over seeds where runs differ in nothing else."""
    if len(runs) < 2:
        return ""
    keys = differing(runs)
    measured = list(dict.fromkeys(what for run in runs for what in run.results))
    rows = [
        (
            f"<span class=name>{page.text(run.name)}</span>",
            page.text(_changes(run, runs[0], keys)),
            *(_cell(run.results.get(what)) for what in measured),
        )
        for run in runs
    ]
    drawings = [
        page.figure(
            shares(
                [ShareRow(run.name, found) for run in runs if isinstance(found := run.results.get(what), Share)], f"runs{index}"
            ),
            f"{what[0].upper()}{what[1:]}, of every run, with its 95 % interval over what was tried. Where two intervals overlap "
            "widely, the runs are not shown to differ.",
        )
        for index, what in enumerate(measured)
        if sum(isinstance(run.results.get(what), Share) for run in runs) > 1
    ]
    lead = (
        f"{len(runs)} runs of the whole chain. What a run shares with another up to some step was made once. All numbers are "
        "of the trained encoder."
    )
    return page.section(
        "runs",
        "Runs compared",
        page.paragraph(lead, kind="lead"),
        page.table(("run", "differs in", *map(page.text, measured)), rows, numbers=range(2, 2 + len(measured))),
        page.figures(drawings) if drawings else "",
        _over_seeds(runs, keys, measured),
    )


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings, as `step.key`, that are not the same in all runs."""
    keys = sorted({key for run in runs for key in run.settings})
    return [key for key in keys if any(run.settings.get(key) != runs[0].settings.get(key) for run in runs)]


def _over_seeds(runs: Sequence[Run], keys: Sequence[str], measured: Sequence[str]) -> str:
    """The mean over runs that differ in seeds alone: the interval of a single run says nothing of the next seed."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        kind = tuple(f"{key}={run.settings.get(key)}" for key in keys if not _is_seed(key))
        groups.setdefault(kind, []).append(run)
    rows = [
        (page.text(", ".join(run.name for run in group)), *(_mean_cell(group, what) for what in measured))
        for group in groups.values()
        if any(map(_is_seed, differing(group)))
    ]
    if not rows:
        return ""
    head = ("runs that differ in seeds alone", *map(page.text, measured))
    words = "The mean over the runs, and the least and the greatest: how far one seed is from the next."
    return "<h3>Over seeds</h3>" + page.paragraph(words, kind="small muted") + page.table(head, rows)


def _is_seed(key: str) -> bool:
    return key.endswith("seed")


def _mean_cell(runs: Sequence[Run], what: str) -> str:
    found = [run.results[what] for run in runs if what in run.results]
    if len(found) < 2:
        return "–"
    percent = isinstance(found[0], Share)
    values = [value.rate * 100 if isinstance(value, Share) else value for value in found]
    unit = " %" if percent else ""
    return f"{_number(fmean(values))}{unit} <span class=muted>({_number(min(values))} to {_number(max(values))})</span>"


def _changes(run: Run, first: Run, keys: Sequence[str]) -> str:
    """What a run changes against the first one."""
    if run is first:
        return "–"
    return ", ".join(f"{key} {run.settings.get(key)}" for key in keys if run.settings.get(key) != first.settings.get(key)) or "–"


def _cell(result: Share | float | None) -> str:
    if result is None:
        return "–"
    if isinstance(result, Share):
        return f"{result.successes}/{result.total} <span class=muted>({result.interval()})</span>"
    return _number(result)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _results(sources: Sequence[Source]) -> Iterator[tuple[str, Share | float]]:
    for evaluation in read_evaluations(sources):
        if evaluation.encoder == "trained":
            shift = "" if evaluation.shift == "none" else f", {evaluation.scene}"
            yield f"{evaluation.title[0].lower()}{evaluation.title[1:]}{shift}", evaluation.own.share
    ended = [source for source in sources if source.ended]
    for source in of_kind(ended, "probe")[:1]:
        first = source.body["results"][0]
        if "correct" in first and "total" in first:
            yield "classes named right", Share.of(int(first["correct"]), int(first["total"]))
    for source in of_kind(ended, "validation")[:1]:
        error = source.body["prediction"][0]["error"]
        if error["copy"]:
            yield "held-out error, % of copying", 100 * error["model"] / error["copy"]
    for source in of_kind(ended, "pretrain")[:1]:
        yield "feature rank", float(source.body["final"]["rank"])
        yield "pretraining loss", float(source.body["final"]["loss"])


def _plain(result: Share | float) -> Any:
    return {"successes": result.successes, "total": result.total} if isinstance(result, Share) else result


def _result(value: Any) -> Share | float:
    return Share.of(value["successes"], value["total"]) if isinstance(value, Mapping) else float(value)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif key != "step":
            yield f"{prefix}{key}", value
