"""The commands that look and tell: configurations, and whether this machine is fit."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vjepa2cli.cli import console, costs
from vjepa2cli.cli.steps import Device, Json, Overrides
from vjepa2cli.errors import ConfigError

config_app = typer.Typer(no_args_is_help=True, help="List, show, check and resolve configurations.")

Source = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A preset's name or a YAML file.")]


@config_app.command("list")
def list_presets(
    step: Annotated[str | None, typer.Option(help="Only the presets of this step.")] = None,
    as_json: Json = False,
) -> None:
    """List the presets, by step, and the robots that `vjepa2 ingest --robot` knows."""
    from vjepa2cli import config
    from vjepa2cli.errors import ConfigError
    from vjepa2cli.settings import STEPS

    if step is not None and step not in STEPS:
        raise ConfigError(f"--step: {step!r} is not one of {', '.join(STEPS)}")
    presets = {name: config.preset_names(name) for name in STEPS if step in (None, name)}
    rows = [(name, ", ".join(names) or "none") for name, names in presets.items()]
    robots = config.robot_names() if step is None else []
    rows += [("ingest --robot", ", ".join(robots))] if robots else []
    console.emit({"presets": presets, "robots": robots}, console.table(("step", "presets"), rows), as_json=as_json)


@config_app.command()
def show(source: Source, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print a configuration with every default written out, or a shipped robot, to begin your own with."""
    from vjepa2cli import config

    if source in config.robot_names():
        tree = config.load_robot(source).model_dump(mode="json")
        console.emit(tree, config.robot_text(source).rstrip("\n"), as_json=as_json)
        return
    resolved = config.load_any(source, overrides=overrides or ())
    console.emit(config.to_tree(resolved), config.dump(resolved), as_json=as_json)


@config_app.command()
def check(
    sources: Annotated[list[str], typer.Argument(metavar="NAME|FILE...", help="Presets or YAML files.")], as_json: Json = False
) -> None:
    """Check configurations: unknown keys, wrong types and values out of range are errors."""
    from vjepa2cli import config

    steps = {source: config.load_any(source).step for source in sources}
    console.emit(
        {"valid": steps}, "\n".join(f"{source}: a valid config for {step}" for source, step in steps.items()), as_json=as_json
    )


@config_app.command()
def resolve(
    source: Source,
    out: Annotated[Path, typer.Option(help="The YAML file to write; left alone where it says the same already.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a configuration with every default and override to a file."""
    from vjepa2cli import config

    resolved = config.load_any(source, overrides=overrides or ())
    config.save(resolved, out)
    console.emit({"out": str(out), "step": resolved.step, "digest": config.digest(resolved)}, str(out), as_json=as_json)


@config_app.command()
def explain(
    source: Source,
    overrides: Overrides = None,
    tflops: Annotated[float, typer.Option(min=0.001, help="What a GPU really does, in TFLOP/s.")] = 400.0,
    gpus: Annotated[int | None, typer.Option(min=1, help="How many; those of the release, unless given.")] = None,
    stored: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Size of stored frames; the crop at 16:9, unless given.")
    ] = None,
    latents: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLUMNSxWIDTH", help="Tokens of a step; those of the release, unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a training costs, and where it departs from the released recipe that it builds on, line by line."""
    from vjepa2cli.train.explanation import cost_rows, departure_lines
    from vjepa2cli.train.explanation import explain as run

    size = None if stored is None else _sizes("--stored", stored, "HEIGHTxWIDTH in pixels, such as 256x455")
    shape = None if latents is None else _sizes("--latents", latents, "ROWSxCOLUMNSxWIDTH, such as 16x16x1408")
    found = run(source, overrides=overrides or (), tflops=tflops, gpus=gpus, stored=size, latents=shape)
    text = console.table(("what", "how much"), cost_rows(found["costs"]))
    if found["departures"]:
        text += f"\n\ndepartures from what was released as {found['released']}:\n"
        text += "\n".join(f"- {line}" for line in departure_lines(found["departures"]))
    console.emit(found, text, as_json=as_json)


def _sizes(option: str, text: str, form: str) -> tuple[int, ...]:
    """Read numbers with an x between them; raises ConfigError where there are not as many as `form` has."""
    sizes, wanted = text.split("x"), form.replace(",", " ").split()[0].count("x") + 1
    if len(sizes) != wanted or not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError(f"{option}: {text!r} is not of the form {form}")
    return tuple(map(int, sizes))


config_app.command()(costs.cost)


def doctor(
    bench: Annotated[bool, typer.Option("--bench", help="Measure how fast it is, for `vjepa2 config cost`.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --bench: where to write the rates.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check versions, devices, video codecs, the simulator and the disk; each red line says what to do."""
    if bench:
        costs.measure(out, device, as_json=as_json)
        return
    from vjepa2cli.diagnosis import diagnose

    with console.step_output():
        checks = diagnose()
    words: dict[bool | None, tuple[str, str]] = {True: ("ok", "green"), False: ("FAIL", "red"), None: ("note", "yellow")}
    healthy = all(check.ok is not False for check in checks)
    rows = [(words[check.ok][0], check.name, "; ".join(filter(None, [check.detail, check.remedy]))) for check in checks]
    text = console.table(("", "what", "found"), rows, colours=[words[check.ok][1] for check in checks])
    console.emit({"ok": healthy, "checks": [asdict(check) for check in checks]}, text, as_json=as_json)
    if not healthy:
        raise typer.Exit(1)
