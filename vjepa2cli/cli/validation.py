"""The verdict on a world model as a command: a row a capability, and what the verdict rests on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand, own_or_shipped
from vjepa2cli.cli.steps import AcModel, Device, Json, Overrides, config_option, find_device, load_config
from vjepa2cli.errors import InputError

_COLOURS = {"yes": "green", "partly": "yellow", "no": "red", "untold": "yellow"}


def validate(
    latents: Annotated[Path, typer.Argument(metavar="LATENTS.h5", help="Latents of held-out recordings: `vjepa2 precompute`.")],
    model: AcModel = None,
    out: Annotated[Path, typer.Option("--out", help="The report to write, as JSON.")] = Path("validation.json"),
    train_latents: Annotated[
        Path | None,
        typer.Option(metavar="LATENTS.h5", help="Latents that the model was trained on, where LATENTS holds none of them."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE.zarr", help="The videos of the training latents: adds an imagined rollout in their frames."),
    ] = None,
    film_strip: Annotated[Path | None, typer.Option(help="Draw that rollout, as .png or .svg; needs --store.")] = None,
    config: Annotated[str, config_option("validate")] = "tiny-validate",
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge a world model on held-out recordings, without a robot: what it is good for, and how far ahead."""
    from vjepa2cli.settings import ValidateConfig

    settings = load_config(config, ValidateConfig, overrides)
    if film_strip is not None and store is None:
        raise InputError("--film-strip: shows frames of the training recordings; name their video store with --store")
    if film_strip is not None and film_strip.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{film_strip}: pictures are written as .png or .svg; choose one by the name")
    from vjepa2cli.artifacts.reports import read_report
    from vjepa2cli.planning.validation import validate as run

    with console.step_output(out) as progress:
        run(
            latents,
            out,
            model=at_hand(own_or_shipped(model), progress),
            config=settings,
            train_latents=train_latents,
            videos=store,
            device=find_device(device),
            progress=progress,
        )
        if film_strip is not None and store is not None:
            from vjepa2cli.reporting.film_strips import draw_rollout_strip

            draw_rollout_strip(out, store, film_strip)
    report = read_report(out, "validation")
    for caveat in report["caveats"]:
        console.say(f"caveat: {caveat}")
    lines = [str(out), _table(report), _basis(report), report["verdict"]]
    console.emit(report, "\n".join([*lines, *([] if film_strip is None else [str(film_strip)])]), as_json=as_json)


def _table(report: dict[str, Any]) -> str:
    rows = [(found["level"], found["name"], found["said"]) for found in report["capabilities"]]
    return console.table(("", "the model", "told from"), rows, colours=[_COLOURS[level] for level, _, _ in rows])


def _basis(report: dict[str, Any]) -> str:
    """How much was looked at, and the grade."""
    split = {"val": "held-out", "train": "training", "all": "all"}[report["split"]]
    return (
        f"grade {report['grade']:.2f} of 1; {report['num_windows']} windows of {report['num_episodes']} {split} episodes "
        f"at {report['rate']:g} steps a second"
    )
