"""Probing as a command: which recipe and encoder belong to a released probe, and what a data set is read from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vjepa2cli import registry
from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand
from vjepa2cli.cli.steps import (
    Device,
    Json,
    Overrides,
    Replace,
    RunDir,
    config_option,
    emit_report,
    find_device,
    load_config,
    start_or_replace,
)
from vjepa2cli.errors import ConfigError, InputError

_DATA = {
    "ssv2": "train.json validation.json --classes labels.json --root 20bn-something-something-v2",
    "k400": "train.csv val.csv --root k400",
    "diving48": "Diving48_V2_train.json Diving48_V2_test.json --root rgb",
    "jester": "jester-v1-train.csv jester-v1-validation.csv --classes jester-v1-labels.csv --root 20bn-jester-v1",
    "coin": "COIN.json --root videos",
    "in1k": "imagenet/train imagenet/val",
    "ek100": "EPIC_100_train.csv EPIC_100_validation.csv --root EPIC-KITCHENS",
}
"""What the published files of a set are called."""


def probe(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA...", help="A video store, or a table of training and one of validation; with --eval-only one will do."
        ),
    ] = None,
    run_dir: RunDir = Path("results/probe"),
    model: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The frozen encoder: as elsewhere; of --weights that is released, the encoder released with it.",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="PROBE", help="A probe: a run directory's folder, a file, or a released name.")
    ] = None,
    eval_only: Annotated[
        bool, typer.Option("--eval-only", help="Train nothing: judge --weights on the validation clips.")
    ] = False,
    beside: Annotated[list[str] | None, typer.Option(metavar="SOURCE", help="Probe this encoder too; repeatable.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the files of the tables lie, if not where they say.")] = None,
    classes: Annotated[Path | None, typer.Option(help="The published list of classes, whose order is their numbers'.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where features are kept; in the run directory if left out.")] = None,
    max_cache: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Keep at most this much of features, such as 200GiB; else what is free.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Probe part I (from 0) of N of the encoders, beside other jobs; the same without --shard reports."
        ),
    ] = None,
    config: Annotated[str | None, config_option("probe")] = None,
    overrides: Overrides = None,
    device: Device = "auto",
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Train probes on frozen features of labelled clips, beside their baselines; or judge one that is trained."""
    from vjepa2cli.settings import ProbeConfig

    recipe, encoder = released_probe(weights)
    settings = load_config(config or recipe or "tiny-probe", ProbeConfig, overrides)
    require_probe_inputs(data, weights, settings.dataset, eval_only=eval_only)
    encoder = model or encoder or "results/pretrain"
    from vjepa2cli.artifacts.latent_store import Shard
    from vjepa2cli.encoding.memory import parse_bytes
    from vjepa2cli.train.probing import probe as run
    from vjepa2cli.train.probing import remove_part

    part = None if shard is None else Shard.parse(shard)
    if part is not None and weights is not None:
        raise ConfigError("--shard: a trained probe is judged by one job; leave out --shard or --weights")
    with console.step_output(run_dir) as progress:
        path = start_or_replace(
            lambda: run(
                data or (),
                run_dir,
                model=encoder,
                config=settings,
                weights=weights,
                beside=beside or (),
                root=root,
                classes=classes,
                cache=cache,
                max_cache=parse_bytes(max_cache) if max_cache else None,
                shard=part,
                device=find_device(device),
                fetch=lambda source: at_hand(source, progress),
                say=console.say,
                progress=progress,
            ),
            run_dir,
            replace=replace,
            remove=None if part is None else lambda folder: remove_part(folder, settings, beside or (), part),
        )
    if part is None:
        emit_report(path, as_json=as_json)
    else:
        console.emit({"out": str(path)}, str(path), as_json=as_json)


def released_probe(weights: str | None) -> tuple[str | None, str | None]:
    """The recipe and the encoder of a released probe, by its name or that of its file; None for other probes."""
    if weights is None:
        return None, None
    row = registry.RELEASED.get(weights) or registry.released_file(Path(weights).name)
    if row is None or row.family != "probe":
        return None, None
    encoders = (one for one in registry.RELEASED.values() if (one.family, one.size, one.crop) == ("2", row.size, row.crop))
    return row.name, next(encoders).name


def require_probe_inputs(data: Sequence[Path] | None, weights: str | None, dataset: str | None, *, eval_only: bool) -> None:
    """Raise InputError where a probe has nothing to read, or is told half of what it is to do."""
    if eval_only and weights is None:
        raise InputError("--eval-only: judges a trained probe; name it with --weights")
    if weights is not None and not eval_only:
        raise InputError("--weights: names a trained probe, which is judged and not trained; add --eval-only")
    if not data:
        example = _DATA.get(dataset or "", "X.zarr")
        raise InputError(f"no data were named; give a video store, or the files of a set, such as: vjepa2 probe {example}")
