"""What an encoder sees and its predictor foretells, as commands: features, pictures of them, and surprise."""

from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand
from vjepa2cli.cli.steps import Device, Encoder, Json, Overrides, config_option, find_device, load_config
from vjepa2cli.errors import InputError


def encode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT", help="A video, an image, a folder, a quoted glob, a video store, or - for a list on stdin."
        ),
    ],
    model: Encoder = "results/pretrain",
    out: Annotated[
        Path | None,
        typer.Option(
            help="One input: .npz, .safetensors, .h5 or .zarr. Several: a folder, or one .h5 or .zarr with a group each."
        ),
    ] = None,
    suffix: Annotated[
        Literal["npz", "safetensors", "h5", "zarr"] | None, typer.Option("--format", help="Format of the files in a folder.")
    ] = None,
    mode: Annotated[
        Literal["tokens", "pooled", "per-frame", "window"] | None,
        typer.Option(help="All tokens; one vector a clip; one a time step; tokens of overlapping clips. As --set mode=..."),
    ] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames of a clip. As --set num_frames=...")] = None,
    stride: Annotated[int | None, typer.Option(help="Frames between the starts of two clips. As --set stride=...")] = None,
    fps: Annotated[float | None, typer.Option(help="Sample at this rate instead of every frame. As --set fps=...")] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="5,11,-1", help="Features of these blocks, by number. As --set layers=[...]")
    ] = None,
    pca: Annotated[
        Path | None, typer.Option(help="Draw the first three principal components: .mp4 or .png, or a folder for several inputs.")
    ] = None,
    pca_foreground: Annotated[bool, typer.Option("--pca-foreground", help="Components of the foreground, on black.")] = False,
    pca_shared: Annotated[bool, typer.Option("--pca-shared", help="One basis for all inputs, so that colours compare.")] = False,
    similarity: Annotated[
        str | None,
        typer.Option(metavar="X,Y[,T]", help="Draw the cosine of every patch to the one at this pixel of the video, T seconds."),
    ] = None,
    similarity_out: Annotated[
        Path | None, typer.Option(help="Where the similarity is drawn, .mp4 or .png; its numbers go beside it, .json.")
    ] = None,
    config: Annotated[str, config_option("encode")] = "tiny-encode",
    overrides: Overrides = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode ahead; 0 for none.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Stay below it, such as 4GiB: of the GPU where there is one, else of all.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write features anew that were made otherwise.")] = False,
    as_json: Json = False,
) -> None:
    """Turn videos and images into features with timestamps."""
    from vjepa2cli.settings import EncodeConfig

    flags = {"mode": mode, "num_frames": num_frames, "stride": stride, "fps": fps, "layers": layers and f"[{layers}]"}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    settings = load_config(config, EncodeConfig, [*(overrides or ()), *given])
    from vjepa2cli.encoding import Pictures, Point
    from vjepa2cli.encoding import encode as run
    from vjepa2cli.encoding.memory import parse_bytes

    point = None if similarity is None else Point(*_point(similarity))
    pictures = Pictures(pca, pca_foreground, pca_shared, point, similarity_out)
    where = find_device(device)
    with console.step_output(out) as progress:
        source = at_hand(model, progress)
        result = run(
            inputs,
            model=source,
            out=out,
            suffix=None if suffix is None else f".{suffix}",  # type: ignore[arg-type]
            config=settings,
            pictures=pictures,
            device=where,
            workers=workers,
            max_memory=parse_bytes(max_memory) if max_memory else None,
            replace=replace,
            progress=progress,
            say=console.say,
        )
    for refused in result["refused"]:
        console.say(f"refused {refused['source']}: {refused['reason']}")
    if result["kept"]:
        console.say(f"kept {len(result['kept'])} of an earlier run")
    console.emit(result, "\n".join([*result["files"], *result["drawn"]]), as_json=as_json)


def _point(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(map(isfinite, numbers)):
        raise InputError(
            f"--similarity {text!r}: write x,y in pixels of the video, or x,y,t with t in seconds, such as 120,80,1.5"
        )
    return numbers


def surprise(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video.")],
    model: Encoder = "results/pretrain",
    out: Annotated[Path | None, typer.Option(help="The numbers, .json; VIDEO.surprise.json if left out.")] = None,
    plot: Annotated[Path | None, typer.Option(help="The plot, .png or .svg; VIDEO.surprise.png if left out.")] = None,
    map_out: Annotated[
        Path | None, typer.Option("--map", help="Also draw the error of every patch beside the frames, .mp4.")
    ] = None,
    config: Annotated[str, config_option("surprise")] = "tiny-surprise",
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Foretell a video from its past, and show over time how far that was off."""
    from vjepa2cli.settings import SurpriseConfig

    settings = load_config(config, SurpriseConfig, overrides)
    from vjepa2cli.artifacts.reports import read_report
    from vjepa2cli.encoding.surprise import measure_surprise
    from vjepa2cli.reporting.surprise import check_plot, draw_surprise

    out, plot = out or Path(f"{video.stem}.surprise.json"), plot or Path(f"{video.stem}.surprise.png")
    check_plot(plot)
    where = find_device(device)
    with console.step_output(out) as progress:
        source = at_hand(model, progress)
        measure_surprise(video, model=source, out=out, map_out=map_out, config=settings, device=where, progress=progress)
        draw_surprise(out, plot)
    found = read_report(out)
    written = [str(path) for path in (out, plot, map_out) if path is not None]
    peak, mean, copied = found["peak"], found["mean"], found["mean_unchanged"]
    said = f"most surprising at {peak['time']:.2f} s: {peak['surprise']:.3f}; mean {mean:.3f}; last time step copied {copied:.3f}"
    console.emit(found | {"written": written}, "\n".join([*written, said]), as_json=as_json)
