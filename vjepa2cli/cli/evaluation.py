"""Evaluation as a command: tasks in closed loop, whole or a part of them."""

from pathlib import Path
from typing import Annotated

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand, is_shipped, own_or_shipped
from vjepa2cli.cli.steps import (
    AcModel,
    Device,
    Json,
    Overrides,
    ReportOut,
    Workers,
    config_option,
    emit_report,
    find_device,
    load_config,
)
from vjepa2cli.errors import ConfigError


def evaluate(
    out: ReportOut,
    model: AcModel = None,
    config: Annotated[
        str | None,
        config_option("evaluate", otherwise="; else `tiny-evaluate`, and for the shipped model `tabletop-evaluate`"),
    ] = None,
    overrides: Overrides = None,
    latents: Annotated[
        Path | None, typer.Option(help="Latents of the recordings: a clone of what was recorded plays beside the planner.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Play the episodes of an earlier report again, with its config.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Play part I (from 0) of N, beside other jobs; the same without --shard writes the report."
        ),
    ] = None,
    workers: Workers = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Play tasks from image goals in the simulated tabletop, closed loop, beside a random policy and an expert."""
    from vjepa2cli.settings import EvaluateConfig

    source = own_or_shipped(model)
    preset = "tabletop-evaluate" if is_shipped(source) else "tiny-evaluate"
    settings = load_config(config or preset, EvaluateConfig, overrides)
    from vjepa2cli.artifacts.latent_store import Shard
    from vjepa2cli.planning.evaluation import evaluate as run

    part = None if shard is None else Shard.parse(shard)
    if part is not None and replay is not None:
        raise ConfigError("--shard: an earlier report is played again by one job; leave out --shard or --replay")
    with console.step_output(out) as progress:
        path = run(
            at_hand(source, progress),
            out,
            config=settings,
            device=find_device(device),
            latents=latents,
            replay=replay,
            shard=part,
            workers=workers,
            progress=progress,
        )
    if part is None:
        emit_report(path, as_json=as_json)
    else:
        console.emit({"out": str(path)}, str(path), as_json=as_json)
