"""The steps as commands: read the config, call the step, print what it made."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import TRAINED, at_hand
from vjepa2cli.errors import DependencyError, StaleArtifactError
from vjepa2cli.ranks import is_leader

if TYPE_CHECKING:
    from vjepa2cli.artifacts.latent_store import Shard
    from vjepa2cli.settings import StepConfig

    _Config = TypeVar("_Config", bound=StepConfig)
_Result = TypeVar("_Result")

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one config key; repeatable.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the networks run.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes to work with.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Start over where the output was made under another config or from other inputs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Store = Annotated[Path, typer.Argument(metavar="STORE.zarr", help="A video store written by `vjepa2 ingest`.")]
Latents = Annotated[Path, typer.Argument(metavar="LATENTS.h5", help="Latents written by `vjepa2 precompute`.")]
RunDir = Annotated[Path, typer.Option(help="Where checkpoints, metrics, the model and report.json go; a started run resumes.")]
ReportOut = Annotated[Path, typer.Option("--out", help="The report to write, as JSON.")]
Encoder = Annotated[
    str,
    typer.Option(
        "--model", metavar="SOURCE", help="A run directory, model folder, file, released name, untrained:SOURCE or pixels:SOURCE."
    ),
]
AcModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SOURCE",
        help=f"A run directory of `vjepa2 posttrain`, its model folder, or a name; else {TRAINED}, else the shipped `tabletop`.",
    ),
]


def config_option(step: str, *, otherwise: str = "") -> Any:
    """The option --config of a step; `otherwise` says what holds without it, where that is not one preset."""
    told = f"A preset of {step} (see `vjepa2 config list`) or a YAML file{otherwise}."
    return typer.Option("--config", metavar="NAME|FILE", help=told)


def load_config(source: str, root: "type[_Config]", overrides: list[str] | None) -> "_Config":
    """Load a preset or a file, with the overrides of --set."""
    from vjepa2cli import config

    return config.load(source, root, overrides=overrides or ())


def find_device(name: str) -> str:
    """Turn `auto` into the best device of this machine."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DependencyError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device; use --device cpu, or install a CUDA build"
        )
    return name


def start_or_replace(
    step: Callable[[], _Result], out: Path, *, replace: bool, remove: Callable[[Path], None] | None = None
) -> _Result:
    """Run a step; with `replace`, an output that was made under another config or from other inputs is removed first.

    The leader removes it, unless `remove` removes what is this process's own.
    """
    try:
        return step()
    except StaleArtifactError as error:
        if not replace:
            raise
        if is_leader():
            console.say(f"replacing {out}: {error}")
        if remove is not None:
            remove(out)
        elif is_leader():
            shutil.rmtree(out)
        return step()


def emit_report(path: Path, *, as_json: bool) -> None:
    """Print where a report lies and what it comes to, or all of it."""
    from vjepa2cli.artifacts.reports import read_report

    content = read_report(path)
    console.emit(content, "\n".join(filter(None, [str(path), content.get("verdict")])), as_json=as_json)


def collect(
    out: Annotated[Path, typer.Option(help="Folder for the recordings, in the raw DROID layout.")],
    config: Annotated[str, config_option("collect")] = "tiny-collect",
    overrides: Overrides = None,
    workers: Workers = 1,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Record the simulated tabletop arm."""
    from vjepa2cli.collection import collect as run
    from vjepa2cli.settings import CollectConfig

    settings = load_config(config, CollectConfig, overrides)
    with console.step_output(out) as progress:
        path = start_or_replace(lambda: run(out, config=settings, workers=workers, progress=progress), out, replace=replace)
    console.emit({"out": str(path), "episodes": settings.episodes}, str(path), as_json=as_json)


def pretrain(
    store: Store,
    run_dir: RunDir,
    config: Annotated[str, config_option("pretrain")] = "tiny-pretrain",
    overrides: Overrides = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Begin with a run directory's newest checkpoint, or with a model: a folder, file or name."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read and augment the next batch meanwhile.")] = 1,
    device: Device = "auto",
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Pretrain an encoder: predict the features of masked tubelets."""
    from vjepa2cli.settings import PretrainConfig

    settings = load_config(config, PretrainConfig, overrides)
    from vjepa2cli.train.pretraining import pretrain as run

    with console.step_output(run_dir) as progress:
        path = start_or_replace(
            lambda: run(
                store,
                run_dir,
                config=settings,
                init_from=init_from and at_hand(init_from, progress),
                threads=workers,
                device=find_device(device),
                progress=progress,
            ),
            run_dir,
            replace=replace,
        )
    emit_report(path, as_json=as_json)


def precompute(
    store: Store,
    out: Annotated[Path, typer.Option(help="The latent store to write, *.h5; a begun one is gone on with.")],
    model: Encoder = "results/pretrain",
    config: Annotated[str, config_option("precompute")] = "tiny-precompute",
    overrides: Overrides = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Make part I (from 0) of N, in a file of its own; the last part makes them one store."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how large it will be.")] = False,
    device: Device = "auto",
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Encode robot recordings once, each frame alone, with their states and actions."""
    from vjepa2cli.settings import PrecomputeConfig

    settings = load_config(config, PrecomputeConfig, overrides)
    from vjepa2cli.artifacts.latent_store import Shard, remove
    from vjepa2cli.precomputation import Precompute, describe_bytes

    part = Shard.parse(shard) if shard is not None else _launched_part()
    with console.step_output(out) as progress:
        work = Precompute(store, out, model=at_hand(model, progress), config=settings, device=find_device(device))
        size = start_or_replace(lambda: work.estimate(part), out, replace=replace, remove=lambda path: remove(path, part))
        if is_leader():
            console.say(
                f"{size['steps']} steps of {size['episodes']} episodes, {size['views']} views, {size['dtype']}: "
                f"{describe_bytes(size['bytes'])}, of which {describe_bytes(size['left_bytes'])} are left to do here; "
                f"{describe_bytes(size['free_bytes'])} are free"
            )
        whole = not dry_run and start_or_replace(
            lambda: work.run(part, progress=progress), out, replace=replace, remove=lambda path: remove(path, part)
        )
    text = str(out) if whole else f"{out}: {'not begun' if dry_run else 'other parts are still to come'}"
    console.emit({"out": str(out), "whole": whole, **size}, text, as_json=as_json)


def _launched_part() -> "Shard | None":
    """The part of a process that was launched beside others: they share the work."""
    from vjepa2cli.artifacts.latent_store import Shard
    from vjepa2cli.ranks import name_ranks

    if not name_ranks() or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    return Shard(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def posttrain(
    latents: Latents,
    run_dir: RunDir,
    config: Annotated[str, config_option("posttrain")] = "tiny-posttrain",
    overrides: Overrides = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Begin with a trained AC predictor: a run directory, folder, file or released name."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read the next batch meanwhile.")] = 1,
    device: Device = "auto",
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Train the action-conditioned predictor on cached latents."""
    from vjepa2cli.settings import PosttrainConfig

    settings = load_config(config, PosttrainConfig, overrides)
    from vjepa2cli.train.posttraining import posttrain as run

    with console.step_output(run_dir) as progress:
        path = start_or_replace(
            lambda: run(
                latents,
                run_dir,
                config=settings,
                init_from=init_from and at_hand(init_from, progress),
                threads=workers,
                device=find_device(device),
                progress=progress,
            ),
            run_dir,
            replace=replace,
        )
    emit_report(path, as_json=as_json)


def report(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Run directories and reports.")],
    out: Annotated[Path, typer.Option(help="The page to write, *.html.")],
    summary: Annotated[
        Path | None, typer.Option(help="Also write what this run comes to, for --compare of another page.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="SUMMARY", help="The --summary of another run, named by its folder; repeatable.")
    ] = None,
    benchmarks: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of Snakemake's benchmark files; repeatable.")
    ] = None,
    config: Annotated[str, config_option("report")] = "tiny-report",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Draw one HTML page from run directories and reports."""
    from vjepa2cli.settings import ReportConfig

    settings = load_config(config, ReportConfig, overrides)
    from vjepa2cli.reporting import report as run

    with console.step_output(out):
        path = run(inputs, out, config=settings, summary=summary, others=compare or (), benchmarks=benchmarks or ())
    console.emit({"out": str(path)}, str(path), as_json=as_json)
