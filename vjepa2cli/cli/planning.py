"""Plans as commands: what to do from an observation, and pictures of what the model expects of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vjepa2cli.cli import console
from vjepa2cli.cli.sources import at_hand, own_or_shipped
from vjepa2cli.cli.steps import AcModel, Device, Json, Overrides, config_option, find_device, load_config
from vjepa2cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vjepa2cli.planning.goals import Goal
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
    model: AcModel = None,
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
    energy_map: Annotated[
        Path | None, typer.Option(help="Draw the energy around the plan over two axes: .png or .svg; see energy_map.* in --set.")
    ] = None,
    film_strip: Annotated[
        Path | None,
        typer.Option(help="Draw the nearest training frames to what the model imagines, .png; needs --latents and --store."),
    ] = None,
    latents: Annotated[Path | None, typer.Option(metavar="LATENTS.h5", help="Latents that the model was trained on.")] = None,
    store: Annotated[Path | None, typer.Option(metavar="STORE.zarr", help="The videos that those latents were made of.")] = None,
    config: Annotated[str, config_option("plan")] = "tiny-plan",
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the actions that lead from an observation to a goal image, or to several in order."""
    from vjepa2cli.settings import PlanConfig

    settings, pose = load_config(config, PlanConfig, overrides), _numbers(state)
    if (film_strip is None) != (latents is None) or (film_strip is None) != (store is None):
        raise InputError("--film-strip, --latents and --store: go together; give all three, or none")
    for path in (energy_map, film_strip):
        if path is not None and path.suffix.lower() not in (".png", ".svg"):
            raise InputError(f"{path}: pictures are written as .png or .svg; choose one by the name")
    from vjepa2cli.planning.goals import parse_goal
    from vjepa2cli.planning.single_plan import Extras
    from vjepa2cli.planning.single_plan import plan as run

    with console.step_output(out) as progress:
        goals = [parse_goal(text) for text in goal]
        made = run(
            obs,
            goals,
            model=at_hand(own_or_shipped(model), progress),
            state=pose,
            config=settings,
            out=out,
            device=find_device(device),
            budget_ms=budget_ms,
            extras=Extras(energy_map=energy_map is not None, latents=latents, videos=store, proposals=proposals),
        )
        if energy_map is not None:
            _draw_energy_map(out, energy_map)
        if film_strip is not None and store is not None:
            _draw_film_strip(out, store, film_strip, obs=obs, goals=goals)
    drawn = [str(path) for path in (energy_map, film_strip) if path is not None]
    console.emit(made.to_tree() | {"out": str(out), "drawn": drawn}, "\n".join([*_lines(made), *drawn]), as_json=as_json)


def _draw_energy_map(plan_file: Path, picture: Path) -> None:
    from vjepa2cli.reporting.plan_pictures import draw_energy_map

    draw_energy_map(plan_file, picture)


def _draw_film_strip(plan_file: Path, store: Path, picture: Path, *, obs: Path, goals: "Sequence[Goal]") -> None:
    from vjepa2cli.planning.goals import read_frame
    from vjepa2cli.reporting.film_strips import draw_film_strip

    wanted = [read_frame(goal.image, "goal") for goal in goals]
    draw_film_strip(plan_file, store, picture, observed=read_frame(obs, "obs"), goals=wanted)


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
