"""Video stores as a command: written from videos, images and recordings, or read again to see whether they are whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.steps import Json, Overrides, Replace, Workers, config_option, load_config, start_or_replace
from vjepa2cli.errors import ArtifactError

if TYPE_CHECKING:
    from vjepa2cli.ingestion import IngestSummary
    from vjepa2cli.settings import IngestConfig

_ROWS = 100


def ingest(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Videos, images, folders, quoted patterns such as 'clips/**/*.mp4', recordings, .csv or .jsonl tables.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The video store to write or to complete, *.zarr.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A table of labelled windows: video,label and start_frame,num_frames or start,end; also episode."),
    ] = None,
    robot: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What the recordings' numbers are: a shipped robot, or a robot.yaml of your own."),
    ] = None,
    split_shots: Annotated[bool, typer.Option("--split-shots", help="Store each shot by itself. As --set shots=split")] = False,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="STORE.zarr", help="Write nothing: read every frame of this store and check its digests."),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Also write the summary here, last.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Take in part I (from 0) of N, beside other jobs; the same without --shard completes it."
        ),
    ] = None,
    config: Annotated[str, config_option("ingest")] = "tiny-ingest",
    overrides: Overrides = None,
    workers: Workers = 1,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Decode videos, images and robot recordings once, into a sharded Zarr store."""
    if verify is not None:
        if sources or out is not None:
            raise typer.BadParameter("reads the store that it names; leave out SOURCE and --out", param_hint="--verify")
        _verify(verify, workers, as_json=as_json)
        return
    if not sources or out is None:
        raise typer.BadParameter("name at least one SOURCE, and the store with --out", param_hint="SOURCE")
    from vjepa2cli.files import write_json
    from vjepa2cli.ingestion import ingest as run
    from vjepa2cli.settings import IngestConfig

    settings = load_config(config, IngestConfig, [*(overrides or ()), *(["shots=split"] if split_shots else ())])
    if robot is not None:
        from vjepa2cli import config as configs

        settings = settings.model_copy(update={"robot": configs.load_robot(robot)})
    if shard is not None:
        _ingest_part(sources, out, settings, shard=shard, labels=labels, workers=workers, replace=replace, summary=summary)
        return
    with console.step_output(out) as progress:
        result = start_or_replace(
            lambda: run(sources, out, labels=labels, config=settings, workers=workers, progress=progress), out, replace=replace
        )
    if summary is not None:
        write_json(summary, dict(result))
    if as_json:
        for refused in result["refused"]:
            console.say(f"refused {refused['source']}: {refused['reason']}")
    if result["images_passed_over"]:
        console.say(f"passed over {result['images_passed_over']} images in folders that hold videos; name them to take them in")
    taken = {item["source"] for item in result["accepted"]}
    for item in result["notes"]:
        if item["source"] not in taken:
            console.say(f"{item['source']}: {item['note']}")
    for warning in (result["robot"] or {}).get("warnings", ()):
        console.say(f"warning: {warning}")
    text = "\n".join([_table(result), *_robot_lines(result["robot"]), _last_line(out, result)])
    console.emit(dict(result), text, as_json=as_json)


def _ingest_part(
    sources: list[Path],
    out: Path,
    settings: "IngestConfig",
    *,
    shard: str,
    labels: Path | None,
    workers: int,
    replace: bool,
    summary: Path | None,
) -> None:
    from vjepa2cli.artifacts.latent_store import Shard
    from vjepa2cli.artifacts.locks import locked
    from vjepa2cli.files import write_json
    from vjepa2cli.ingestion import begin, ingest_part

    part = Shard.parse(shard)
    with console.step_output(out) as progress:
        # One at a time, since a part that starts the store over must not remove what another one has begun.
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.parent):
            start_or_replace(lambda: begin(sources, out, config=settings, labels=labels), out, replace=replace)
        count = ingest_part(
            sources,
            out,
            part=part.index,
            parts=part.count,
            config=settings,
            labels=labels,
            workers=workers,
            progress=progress,
        )
    if summary is not None:
        write_json(summary, {"store": str(out), "part": shard, "sources": count})
    console.say(f"{out}: {count} sources of part {shard} are in; the same command without --shard completes the store")


def _robot_lines(found: dict[str, Any] | None) -> list[str]:
    """What was found of recordings of a robot, in a line or two."""
    if found is None:
        return []
    idle = f"nothing moves in {found['coverage']['idle_share']:.0%} of them"
    lines = [f"robot: {found['episodes']} episodes, {found['steps']} steps at {found['rate']:g} Hz; {idle}"]
    alignment = found["alignment"]
    if alignment is not None and alignment["lead_s"] is not None:
        seconds, rows = alignment["lead_s"], alignment["lead_rows"]
        lines.append(f"robot: commands lead what moves by {seconds:.2f} s, {rows:.1f} rows")
    return lines


def _last_line(out: Path, result: "IngestSummary") -> str:
    kinds = {
        "videos": result["videos"],
        "images": result["images"],
        "frames": result["frames"],
        "refused": len(result["refused"]),
    }
    shown = [f"{count} {kind}" for kind, count in kinds.items() if count or kind != "images"]
    return f"{out}: {', '.join(shown)}"


def _table(result: "IngestSummary") -> str:
    """What was taken in and what was not, each with what there is to say of it; of many, those of which there is most to say."""
    remarks: dict[str, list[str]] = {}
    for item in result["notes"]:
        remarks.setdefault(item["source"], []).append(item["note"])
    for item in result["findings"]:
        remarks.setdefault(item["source"], []).append(item["finding"])
    accepted = sorted(result["accepted"], key=lambda item: (item["source"] not in remarks, item["source"]))
    rows = [
        (
            "accepted",
            item["source"],
            str(item["frames"]),
            f"{item['seconds']:.2f}",
            item["size"],
            item["split"],
            "; ".join(remarks.get(item["source"], ())),
        )
        for item in sorted(accepted[:_ROWS], key=lambda item: item["source"])
    ]
    refused = [("refused", item["source"], "", "", "", "", item["reason"]) for item in result["refused"][:_ROWS]]
    colours = ["yellow" if row[-1] else "green" for row in rows] + ["red"] * len(refused)
    text = console.table(("", "source", "frames", "seconds", "size", "split", "remarks"), [*rows, *refused], colours=colours)
    hidden = len(accepted) - len(rows) + len(result["refused"]) - len(refused)
    return text + (f"\n... and {hidden} more, which --summary FILE and --json list" if hidden else "")


def _verify(store: Path, workers: int, *, as_json: bool) -> None:
    from vjepa2cli.ingestion import verify

    with console.step_output(store) as progress:
        damaged = verify(store, workers=workers, progress=progress)
    if not damaged:
        console.emit({"store": str(store), "damaged": {}}, f"{store}: whole; every frame has its checksum", as_json=as_json)
        return
    if as_json:
        console.emit({"store": str(store), "damaged": damaged}, "", as_json=True)
    else:
        for key, reason in damaged.items():
            console.say(f"damaged {key or 'the index'}: {reason}")
    names = ", ".join(key or "the index" for key in list(damaged)[:3]) + (", ..." if len(damaged) > 3 else "")
    raise ArtifactError(
        f"{store}: {len(damaged)} damaged: {names}; remove {store}/videos/KEY of each and ingest the same sources again, which "
        "adds what is missing"
    )
