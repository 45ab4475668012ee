"""The tasks of the tabletop: each lays out an episode from a seed, takes its goal images, and says when it is done."""

from collections.abc import Callable

from vjepa2cli.settings import SceneConfig, TaskName, TasksConfig
from vjepa2cli.simulation.environment import Task
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks.carrying import PickAndPlace, ReachWithObject
from vjepa2cli.simulation.tasks.grasp import Grasp
from vjepa2cli.simulation.tasks.push import Push
from vjepa2cli.simulation.tasks.reach import Reach

__all__ = ["Grasp", "PickAndPlace", "Push", "Reach", "ReachWithObject", "make_task"]


def make_task(name: TaskName, environment: Tabletop, config: TasksConfig, scene: SceneConfig) -> Task:
    """The task of a name in an environment of that scene."""
    makers: dict[TaskName, Callable[[], Task]] = {
        "reach": lambda: Reach(environment, config.reach, scene),
        "grasp": lambda: Grasp(environment, config.grasp, scene),
        "reach_with_object": lambda: ReachWithObject(environment, config.reach_with_object, scene),
        "pick_and_place": lambda: PickAndPlace(environment, config.pick_and_place, config.grasp, scene),
        "push": lambda: Push(environment, config.push, scene),
    }
    return makers[name]()
