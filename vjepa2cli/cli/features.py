"""What an encoder sees, as commands: features and pictures of them."""

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand
from vjepa2cli.cli.steps import Device, Encoder, Json, Overrides, config_option, find_device, load_config
from vjepa2cli.errors import InputError


def encode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="A video, an image, a folder of them, or a video store.")],
    model: Encoder = "results/pretrain",
    out: Annotated[Path | None, typer.Option(help="Features: .npz or .safetensors; a folder for several inputs.")] = None,
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
    as_json: Json = False,
) -> None:
    """Turn a video, an image or a folder into features with timestamps."""
    from vjepa2cli.settings import EncodeConfig

    settings = load_config(config, EncodeConfig, overrides)
    from vjepa2cli.encoding import Pictures, Point
    from vjepa2cli.encoding import encode as run

    point = None if similarity is None else Point(*_point(similarity))
    pictures = Pictures(pca, pca_foreground, pca_shared, point, similarity_out)
    where = find_device(device)
    with console.step_output(out) as progress:
        source = at_hand(model, progress)
        result = run(inputs, model=source, out=out, config=settings, pictures=pictures, device=where, progress=progress)
    for refused in result["refused"]:
        console.say(f"refused {refused['source']}: {refused['reason']}")
    console.emit(result, "\n".join([*result["written"], *result["drawn"]]), as_json=as_json)


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
