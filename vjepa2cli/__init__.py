"""vjepa2cli: video in, a world model that plans out. Public names resolve on first use, so importing costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vjepa2cli.data.poses import pose_compose, pose_delta
    from vjepa2cli.data.transforms import preprocess
    from vjepa2cli.data.video import Clip, read_clip
    from vjepa2cli.errors import Vjepa2Error
    from vjepa2cli.models.weights import load_ac_predictor, load_encoder, load_predictor, load_probe
    from vjepa2cli.planning.cem import cem
    from vjepa2cli.planning.evaluation import evaluate
    from vjepa2cli.planning.model_card import load_world_model
    from vjepa2cli.planning.single_plan import plan
    from vjepa2cli.simulation.environment import Environment, Episode, Measure, Observation, Suite, Task, View
    from vjepa2cli.simulation.gymnasium_adapter import GymnasiumEnvironment, GymnasiumTask
    from vjepa2cli.tokens import TokenGrid

__version__ = "0.1.0"

_HOMES = {
    "Clip": "data.video",
    "Environment": "simulation.environment",
    "Episode": "simulation.environment",
    "GymnasiumEnvironment": "simulation.gymnasium_adapter",
    "GymnasiumTask": "simulation.gymnasium_adapter",
    "Measure": "simulation.environment",
    "Observation": "simulation.environment",
    "Suite": "simulation.environment",
    "Task": "simulation.environment",
    "TokenGrid": "tokens",
    "View": "simulation.environment",
    "Vjepa2Error": "errors",
    "cem": "planning.cem",
    "evaluate": "planning.evaluation",
    "load_ac_predictor": "models.weights",
    "load_encoder": "models.weights",
    "load_predictor": "models.weights",
    "load_probe": "models.weights",
    "load_world_model": "planning.model_card",
    "plan": "planning.single_plan",
    "pose_compose": "data.poses",
    "pose_delta": "data.poses",
    "preprocess": "data.transforms",
    "read_clip": "data.video",
}

__all__ = [
    "Clip",
    "Environment",
    "Episode",
    "GymnasiumEnvironment",
    "GymnasiumTask",
    "Measure",
    "Observation",
    "Suite",
    "Task",
    "TokenGrid",
    "View",
    "Vjepa2Error",
    "__version__",
    "cem",
    "evaluate",
    "load_ac_predictor",
    "load_encoder",
    "load_predictor",
    "load_probe",
    "load_world_model",
    "plan",
    "pose_compose",
    "pose_delta",
    "preprocess",
    "read_clip",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vjepa2cli' has no attribute {name!r}")
    return getattr(import_module(f"vjepa2cli.{_HOMES[name]}"), name)
