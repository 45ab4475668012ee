"""The commands around checkpoints: list, pull, inspect, convert, and fresh encoders."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand
from vjepa2cli.cli.steps import Json, Overrides

if TYPE_CHECKING:
    from vjepa2cli.models.contents import Network
    from vjepa2cli.registry import ReleasedModel

_CLASSES = {"linear": "classes", "verb_classifier": "verbs", "noun_classifier": "nouns", "action_classifier": "actions"}

weights_app = typer.Typer(no_args_is_help=True, help="Checkpoints: list, pull, inspect and convert them; and fresh encoders.")


@weights_app.command("list")
def list_weights(as_json: Json = False) -> None:
    """List shipped networks, and the released checkpoints: size, resolution, parameters, licence, origin, and which lie here."""
    from vjepa2cli.registry import BASE_URL, RELEASED, SHIPPED, cache_folder, local_copy

    folder = cache_folder()
    found = {model.name: local_copy(model) for model in RELEASED.values()}
    origin = {name: path and ("hub" if path.is_dir() else "official") for name, path in found.items()}
    files = [
        (
            model.name,
            model.size,
            str(model.crop),
            _millions(model),
            model.told_gigabytes,
            model.licence,
            {"official": "yes", "hub": "hub"}.get(origin[model.name] or "", "-"),
            model.url.removeprefix(BASE_URL),
        )
        for model in RELEASED.values()
    ]
    copies = [
        (model.name, model.hub.repository, f"{4 * model.hub.parameters / 1e9:.1f}", model.hub.licence)
        for model in RELEASED.values()
        if model.hub is not None
    ]
    shipped = [asdict(model) | {"path": str(model.path), "bytes": model.num_bytes} for model in SHIPPED.values()]
    with_package = [(row["name"], f"{row['bytes'] / 1e6:.1f}", row["about"]) for row in shipped]
    text = "\n".join(
        (
            console.table(("shipped", "MB", "what it is"), with_package) + "\n",
            console.table(("name", "size", "px", "millions", "GB", "licence", "here", "official file"), files),
            "\nCopies on the Hugging Face hub, whose encoder is the online one, not its moving average:\n",
            console.table(("name", "repository", "GB", "licence of the card"), copies),
            "\nMillions of parameters are of encoder + predictor, or of a probe without the encoder that it reads.",
            "Of files whose size nobody states, ~ is an estimate and > what they hold at least.",
            f"Official files: {BASE_URL}; the licence is their repository's.",
            f"What lies in {folder} is found by name.",
        )
    )
    weights = [
        asdict(model) | {"file": str(path or folder / model.file_name), "present": path is not None, "origin": origin[model.name]}
        for model, path in zip(RELEASED.values(), found.values(), strict=True)
    ]
    console.emit({"folder": str(folder), "shipped": shipped, "weights": weights}, text, as_json=as_json)


def _millions(model: "ReleasedModel") -> str:
    counts = [model.head_parameters] if model.probe else [model.encoder_parameters, model.head_parameters]
    return "+".join("?" if count is None else f"{count / 1e6:.0f}" for count in counts)


@weights_app.command("example")
def example(
    out: Annotated[Path, typer.Option(help="The folder that the pictures are written to.")] = Path("example"),
    as_json: Json = False,
) -> None:
    """Write pictures of the simulated tabletop that the shipped world model can plan on, and print the commands that do."""
    from vjepa2cli.files import read_json
    from vjepa2cli.registry import SHIPPED

    source = SHIPPED["tabletop"].path / "example"
    told = read_json(source / "example.json")
    out.mkdir(parents=True, exist_ok=True)
    for picture in source.glob("*.png"):
        (out / picture.name).write_bytes(picture.read_bytes())
    state = ",".join(map(str, told["state"]))
    commands = []
    for plan in told["plans"]:
        goals = " ".join(f"--goal {shlex.quote(str(out / goal))}" for goal in plan["goals"])
        command = f"vjepa2 plan --model tabletop --obs {shlex.quote(str(out / plan['obs']))} {goals} --state {state}"
        commands.append(" ".join([command, *(f"--set {change}" for change in plan["set"])]))
    console.emit({"out": str(out), "commands": commands}, "\n".join(commands), as_json=as_json)


@weights_app.command("pull")
def pull_weights(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Released checkpoints; see `vjepa2 weights list`.")],
    wanted: Annotated[
        Literal["any", "official", "hub"],
        typer.Option("--from", help="The official file, its copy on the Hugging Face hub, or the first that can be had."),
    ] = "any",
    offline: Annotated[bool, typer.Option("--offline", help="Only check what lies here; ask no server.")] = False,
    as_json: Json = False,
) -> None:
    """Download released checkpoints, going on where an earlier try stopped, and check their digests."""
    from vjepa2cli import registry
    from vjepa2cli.downloading import describe, pull

    for name in names:
        registry.released(name)
    with console.step_output(registry.cache_folder()) as progress:
        pulled = [pull(name, wanted=wanted, offline=offline, progress=progress) for name in names]
    for copy in pulled:
        console.say(f"{copy.name}: is {describe(registry.released(copy.name), copy.origin)}")
    rows = [(copy.name, str(copy.path), f"sha256 {copy.digest}", copy.url or "was here") for copy in pulled]
    told = [asdict(copy) | {"path": str(copy.path)} for copy in pulled]
    console.emit({"weights": told}, "\n".join("  ".join(row) for row in rows), as_json=as_json)


@weights_app.command("inspect")
def inspect_weights(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A .pt, .pth or .safetensors file, a model folder, or a released name.")
    ],
    as_json: Json = False,
) -> None:
    """Tell what is in a checkpoint: keys, networks, sizes, dtypes and its digest; no tensor is read, no code in it runs."""
    from vjepa2cli.artifacts.model_dir import model_digest
    from vjepa2cli.files import digest_file
    from vjepa2cli.models.contents import read_contents
    from vjepa2cli.registry import RELEASED, in_place, local_copy

    path = Path(in_place(source))
    with console.step_output() as progress:
        if source in RELEASED and not path.exists():
            path = local_copy(RELEASED[at_hand(source, progress)]) or path
    contents = read_contents(path)
    digest = model_digest(path) if path.is_dir() else digest_file(path)
    told = {"path": str(path), "layout": contents.layout, "digest": digest, "top_level": dict(contents.top_level)}
    keys = console.table(("key", "holds"), list(contents.top_level.items()))
    networks = console.table(
        ("network", "key", "family", "tensors", "parameters", "dtypes", "architecture", "prefix"),
        [_cells(network) for network in contents.networks],
    )
    text = f"{path}: {contents.layout} layout, sha256 {digest}\n\n{networks}\n\n{keys}"
    console.emit(told | {"networks": [asdict(network) for network in contents.networks]}, text, as_json=as_json)


def _cells(network: "Network") -> tuple[str, ...]:
    shape: list[Any] = []
    if network.size is not None:
        shape.append(network.size if network.exact else f"nearest to {network.size}")
    if network.width is not None:
        shape += [f"width {network.width}", f"depth {network.depth}"]
    shape += [f"{network.num_heads} heads"] if network.num_heads else []
    shape += [f"patch {network.patch_size}"] if network.patch_size else []
    shape += [f"{count} {_CLASSES[name]}" for name, count in network.outputs.items()]
    return (
        network.network,
        network.key or "-",
        network.family,
        str(network.num_tensors),
        f"{network.parameters:,}",
        " ".join(f"{dtype} x {count}" for dtype, count in network.dtypes.items()),
        ", ".join(shape) or "-",
        " ".join(filter(None, network.prefixes)) or "-",
    )


@weights_app.command("convert")
def convert_weights(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model folder, a checkpoint file, or a released name.")],
    to: Annotated[Literal["official", "transformers", "ours"], typer.Option(help="One .pt file, or a model folder.")],
    out: Annotated[Path, typer.Option(help="What to write; it must not exist yet.")],
    slim: Annotated[bool, typer.Option("--slim", help="Keep one encoder alone, or a world model, in bfloat16.")] = False,
    checkpoint_key: Annotated[str | None, typer.Option(help="Which of several encoders; else the moving average.")] = None,
    num_heads: Annotated[int | None, typer.Option(min=1, help="Heads of the encoder, where the source does not say.")] = None,
    predictor_heads: Annotated[int | None, typer.Option(min=1, help="Heads of the predictor, likewise.")] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Pixels a side it was trained at, likewise.")] = None,
    probe: Annotated[str | None, typer.Option(metavar="SOURCE", help="A probe to join to the encoder, for a classifier.")] = None,
    probe_heads: Annotated[int | None, typer.Option(min=1, help="Heads of the probe, where nothing says them.")] = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint in another layout; without --slim every value stays as it is."""
    from vjepa2cli.conversion import Asked, convert

    with console.step_output(out) as progress:
        asked = Asked(checkpoint_key, num_heads, predictor_heads, crop, probe and at_hand(probe, progress), probe_heads)
        converted = convert(at_hand(source, progress), out, to=to, slim=slim, asked=asked)
    rows = [(name, digest) for name, digest in converted.digests.items()]
    text = f"{out}\n" + console.table(("network", "digest"), rows)
    console.emit({"out": str(out), "digests": dict(converted.digests)}, text, as_json=as_json)


@weights_app.command("init")
def initialise_weights(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A config of pretrain.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write the encoder that a pretraining would start from: what the untrained and pixel baselines are made of."""
    import torch

    from vjepa2cli import config
    from vjepa2cli.artifacts.model_dir import save_model
    from vjepa2cli.models.weights import state_digest, to_folder
    from vjepa2cli.settings import PretrainConfig
    from vjepa2cli.train.networks import build_encoder

    settings = config.load(source, PretrainConfig, overrides=overrides or ())
    encoder = build_encoder(settings, generator=torch.Generator().manual_seed(settings.seed))
    tree, tensors = to_folder(encoder, None)
    about = tree["vjepa2cli"] | {"trained_steps": 0, "digest": state_digest(encoder)}
    save_model(out, tree | {"vjepa2cli": about}, tensors)
    console.emit({"out": str(out), "digest": about["digest"]}, str(out), as_json=as_json)
