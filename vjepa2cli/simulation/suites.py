"""What can be evaluated on: the tabletop, and suites that somebody else wrote, found by name."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import get_args

from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.settings import SceneConfig, TaskName, TasksConfig
from vjepa2cli.simulation.environment import Suite, Task
from vjepa2cli.simulation.tabletop import ROBOT, VERSION, Tabletop
from vjepa2cli.simulation.tasks import make_task

TABLETOP = "tabletop"


def tabletop_suite(*, image_size: int, rate: float, scene: SceneConfig, tasks: TasksConfig) -> Suite:
    """The tabletop with all of its tasks; raises DependencyError where nothing can be drawn."""
    environment = Tabletop(image_size=image_size, rate=rate, scene=scene)
    names: tuple[TaskName, ...] = get_args(TaskName)
    made: dict[str, Task] = {name: make_task(name, environment, tasks, scene) for name in names}
    return Suite(environment, made, ROBOT, f"tabletop {VERSION}, mujoco {version('mujoco')}")


def load_suite(name: str) -> Suite:
    """What `MODULE:FUNCTION` or `FILE.py:FUNCTION` makes; raises ConfigError or InputError where there is none.

    Modules are looked for in the current folder too.
    """
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise ConfigError(
            f"environment: {name!r} is neither {TABLETOP!r} nor MODULE:FUNCTION; the function returns a vjepa2cli Suite"
        )
    make = getattr(_import(place), function, None)
    if not callable(make):
        raise InputError(f"environment: {place} has no function {function!r}")
    return _checked(make, name)


def _checked(make: Callable[[], object], name: str) -> Suite:
    suite = make()
    if not isinstance(suite, Suite):
        raise InputError(f"environment: {name} returned a {type(suite).__name__}; it must return a vjepa2cli Suite")
    if not suite.tasks:
        raise InputError(f"environment: {name} has no tasks; give its Suite at least one")
    return suite


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        folder = os.getcwd()  # noqa: PTH109  What `python -m` puts there too.
        if folder not in sys.path:
            sys.path.insert(0, folder)
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name != place.split(".")[0]:
                raise
            raise InputError(f"environment: there is no module {place!r} here; name a file as FILE.py:FUNCTION") from None
    path = Path(place)
    if not path.is_file():
        raise InputError(f"environment: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    assert spec is not None, "a name that ends in .py has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
