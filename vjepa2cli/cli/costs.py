"""What a run will cost, before it is begun: how fast this machine is, and what the steps ask of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.steps import Json
from vjepa2cli.errors import ConfigError


def cost(
    sources: Annotated[list[str], typer.Argument(metavar="NAME|FILE...", help="Presets or YAML files, one a step.")],
    rates: Annotated[
        Path, typer.Option(help="What `vjepa2 doctor --bench --out FILE` measured on the machine that will run it.")
    ],
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of all recordings, where no config of collect says it.")
    ] = None,
    encoders: Annotated[str, typer.Option(help="Those that are compared, by commas.")] = "trained,untrained,pixels",
    gpus: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP=N", help="GPUs of a step's job, of which each has one otherwise; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Foretell time, GPU-hours and disk of each step of a run, from its configs and the rates of a machine."""
    from vjepa2cli import config
    from vjepa2cli.files import read_json, write_json
    from vjepa2cli.settings import STEPS
    from vjepa2cli.train.chain_costs import chain_work, price

    loaded = {item.step: item for item in map(config.load_any, sources)}
    counts = dict(_gpus_of(item, tuple(STEPS)) for item in gpus or ())
    known = read_json(rates)
    if "training_flops" not in known:
        raise ConfigError(f"{rates}: is no table of rates; write one by 'vjepa2 doctor --bench --out {rates}'")
    rows = price(chain_work(loaded, encoders=encoders.split(","), frames=frames), known, gpus=counts)
    result = {"rates": known, "steps": rows}
    if out is not None:
        write_json(out, result)
    console.emit(result, _cost_table(rows, str(known["device"])), as_json=as_json)


def _gpus_of(text: str, steps: Sequence[str]) -> tuple[str, int]:
    step, equals, count = text.partition("=")
    if step not in steps or not equals or not count.isdecimal() or not int(count):
        raise ConfigError(f"--gpus: {text!r} is not STEP=N, such as pretrain=16; steps are {', '.join(steps)}")
    return step, int(count)


def _cost_table(rows: list[dict[str, Any]], device: str) -> str:
    hours, size = sum(row["gpu_hours"] for row in rows), sum(row["disk_bytes"] for row in rows)
    one_by_one = sum(row["jobs"] * row["seconds_per_job"] for row in rows)
    cells = [
        (
            row["step"],
            str(row["jobs"]),
            _span(row["seconds_per_job"]),
            f"{row['gpu_hours']:.3g}" if row["gpu_hours"] else "",
            f"{row['disk_bytes'] / 1e9:.3g} GB",
            "; ".join(row["remarks"]),
        )
        for row in rows
    ]
    cells.append(
        (
            "all",
            str(sum(row["jobs"] for row in rows)),
            f"{_span(one_by_one)} one by one",
            f"{hours:.3g}",
            f"{size / 1e9:.3g} GB",
            "",
        )
    )
    return console.table(("step", "jobs", "time of a job", "GPU-hours", "disk", ""), cells) + f"\nat the rates of {device}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def measure(out: Path | None, device: str, *, as_json: bool) -> None:
    """Measure the rates of this machine, print them, and write them where `out` says."""
    from vjepa2cli.diagnosis.rates import measure_rates
    from vjepa2cli.files import write_json
    from vjepa2cli.train.process_group import choose_device

    with console.step_output(out or Path()):
        rates = measure_rates(choose_device(device), (out or Path()).resolve().parent)
    if out is not None:
        write_json(out, rates)
    rows = [
        ("device", rates["device"]),
        ("start of a step", f"{rates['start_seconds']:.1f} s"),
        *((f"training, width {width}", f"{rate / 1e9:.4g} GFLOP/s") for width, rate in rates["training_flops"].items()),
        *((f"inference, width {width}", f"{rate / 1e9:.4g} GFLOP/s") for width, rate in rates["inference_flops"].items()),
        ("decoding", f"{rates['decoded_pixels'] / 1e6:.4g} million pixels/s"),
        ("simulation, 96 px", "not here" if rates["simulated_frames"] is None else f"{rates['simulated_frames']:.0f} frames/s"),
        ("writing", f"{rates['written_bytes'] / 1e6:.0f} MB/s"),
    ]
    console.emit(rates, console.table(("what", "rate"), rows), as_json=as_json)
