"""Plans as commands: what to do from an observation, and pictures of what the model expects of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand
from vjepa2cli.cli.steps import AcModel, Device, Json, Overrides, config_option, find_device, load_config
from vjepa2cli.errors import InputError

if TYPE_CHECKING:
    from vjepa2cli.planning.single_plan import Plan


def plan(
    obs: Annotated[Path, typer.Option(help="What the camera sees now: an image, or a video that ends in it.")],
    goal: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGE[:ACTIONS]",
            help="What it should see: an image, or a video that ends in it. Repeat for sub-goals in order, each with its number "
            "of actions.",
        ),
    ],
    model: AcModel = "results/posttrain/trained",
    state: Annotated[
        str | None,
        typer.Option(metavar="X,Y,Z,RX,RY,RZ,G", help="State now: metres, radians, gripper 0 open; or your robot's own."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The plan, with energies per iteration.")] = Path("plan.json"),
    budget_ms: Annotated[
        float | None, typer.Option(help="Have the best plan found so many milliseconds after the model is loaded.")
    ] = None,
    proposals: Annotated[
        Path | None, typer.Option(help="Rank these action sequences instead of searching: .npz, .json or .csv.")
    ] = None,
    config: Annotated[str, config_option("plan")] = "tiny-plan",
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the actions that lead from an observation to a goal image, or to several in order."""
    from vjepa2cli.settings import PlanConfig

    settings, pose = load_config(config, PlanConfig, overrides), _numbers(state)
    from vjepa2cli.planning.goals import parse_goal
    from vjepa2cli.planning.single_plan import Extras
    from vjepa2cli.planning.single_plan import plan as run

    with console.step_output(out) as progress:
        made = run(
            obs,
            [parse_goal(text) for text in goal],
            model=at_hand(model, progress),
            state=pose,
            config=settings,
            out=out,
            device=find_device(device),
            budget_ms=budget_ms,
            extras=Extras(proposals=proposals),
        )
    console.emit(made.to_tree() | {"out": str(out)}, "\n".join(_lines(made)), as_json=as_json)


def _lines(made: "Plan") -> list[str]:
    """The actions, one a line; of proposals their ranking, best first."""
    if "proposals" in made.extras:
        return [
            f"proposal {row['proposal']}: energy {row['energy']:.4f}{', leaves the box' if row['outside_box'] else ''}"
            for row in made.extras["proposals"]
        ]
    return [" ".join(f"{value:+.4f}" for value in action) for action in made.actions.tolist()]


def _numbers(state: str | None) -> list[float] | None:
    if state is None:
        return None
    try:
        return [float(word) for word in state.split(",")]
    except ValueError:
        raise InputError(
            f"--state {state!r}: write numbers with commas between: x,y,z (metres), rx,ry,rz (radians), gripper, "
            "or those of your robot"
        ) from None
