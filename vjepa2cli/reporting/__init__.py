"""`report`: one HTML page from run directories and reports, which says first and in plain words what the numbers allow."""

from collections.abc import Sequence
from pathlib import Path

from vjepa2cli.files import digest_bytes, write_text
from vjepa2cli.reporting import page
from vjepa2cli.reporting.chapters import plans, pretraining, verdict, world_models
from vjepa2cli.reporting.closed_loop import absent_media, closed_loop
from vjepa2cli.reporting.comparison import comparison, read_runs, write_summary
from vjepa2cli.reporting.evaluations import read_evaluations
from vjepa2cli.reporting.lineage import lineage
from vjepa2cli.reporting.probes import absent_examples, probing
from vjepa2cli.reporting.recordings import recordings
from vjepa2cli.reporting.sources import gather
from vjepa2cli.reporting.surroundings import data, missing, timing
from vjepa2cli.reporting.usage import read_usage
from vjepa2cli.reporting.validation import validation, validation_claims
from vjepa2cli.reporting.verdict import claims
from vjepa2cli.settings import ReportConfig

__all__ = ["report"]


def report(
    inputs: Sequence[Path],
    out: Path,
    *,
    config: ReportConfig,
    summary: Path | None = None,
    others: Sequence[Path] = (),
    benchmarks: Sequence[Path] = (),
) -> Path:
    """Write one page, without external assets, from run directories, reports, collections, stores and latents; returns `out`.

    `summary` is written too, for the page of another run, which is given it among `others` to compare; `benchmarks` are folders
    of what Snakemake measured.

    The same inputs give the same bytes. Wall times stand in a section of their own; `<meta name="vjepa2cli-digest">` holds the
    SHA-256 of the rest. What is missing is said on the page; an input that is absent or damaged raises ArtifactError.
    """
    sources = gather(inputs, page=out)
    chapters = {
        "Verdict": verdict([*claims(sources), *validation_claims(sources)]),
        "Runs": comparison(read_runs(sources, others)),
        "Closed loop": closed_loop(sources),
        "Plans": plans(sources),
        "World model": world_models(sources),
        "Validation": validation(sources),
        "Probe": probing(sources),
        "Pretraining": pretraining(sources),
        "Recordings": recordings(sources),
        "Data": data(sources),
        "Lineage": lineage(sources),
        "Missing": missing(sources, [*absent_media(read_evaluations(sources)), *absent_examples(sources)]),
    }
    shown = {name: chapter for name, chapter in chapters.items() if chapter}
    digest = digest_bytes(config.title.encode(), *(chapter.encode() for chapter in shown.values()))
    times = timing(sources, read_usage(benchmarks))
    navigation = [
        (chapter.split('id="')[1].split('"')[0], name) for name, chapter in (shown | ({"Time": times} if times else {})).items()
    ]
    footer = (
        "Made by <code>vjepa2 report</code> from the artefacts named above; nothing on it was typed by hand. "
        f"Digest of this page without its wall times: <code>{digest}</code>"
    )
    write_text(
        out,
        page.document(config.title, navigation=navigation, body="".join(shown.values()) + times, digest=digest, footer=footer),
    )
    if summary is not None:
        write_summary(summary, sources)
    return out
