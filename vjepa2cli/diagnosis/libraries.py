"""The libraries that the steps import: whether they do import, and whether their versions are the wanted ones."""

import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from vjepa2cli.diagnosis.check import Check, run_contained

LIBRARIES = ("torch", "deepspeed", "zarr", "h5py", "av", "cv2", "matplotlib", "snakemake", "mujoco")
OPENCV_REMEDY = "apt-get install -y libgl1 libglib2.0-0 libxcb1"

_DISTRIBUTIONS = {"cv2": "opencv-python"}
_OPTIONAL = {"mujoco": "pip install 'vjepa2cli[sim]' for collect and evaluate"}
_IMPORT_SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        report(name, "ok", getattr(importlib.import_module(name), "__version__", ""))
    except BaseException as error:
        report(name, "fault", f"{type(error).__name__}: {error}")
"""


def check_python() -> Check:
    """The interpreter."""
    fit = sys.version_info >= (3, 11)
    return Check("python", fit, f"{platform.python_version()} at {sys.executable}", "" if fit else "install Python 3.11 or newer")


def check_libraries(names: Sequence[str] = LIBRARIES) -> list[Check]:
    """Import each library in another process, so that one that crashes takes only its own line down."""
    outcomes: dict[str, tuple[str, str]] = {}
    waiting = list(names)
    while waiting:
        lines, ending = run_contained(_IMPORT_SCRIPT, *waiting)
        outcomes |= {name: (state, text) for name, state, text in lines}
        waiting = [name for name in waiting if name not in outcomes]
        if waiting:
            outcomes[waiting.pop(0)] = ("fault", ending)
    return [_judge(name, *outcomes[name]) for name in names]


def _judge(name: str, state: str, text: str) -> Check:
    wanted = requirement(_DISTRIBUTIONS.get(name, name))
    remedy = _OPTIONAL.get(name, f"pip install '{wanted}'")
    if state == "ok":
        fit = satisfies(text, wanted)
        return Check(name, fit, text if fit else f"{text}, but we need {wanted}", "" if fit else remedy)
    if text == f"ModuleNotFoundError: No module named '{name}'":
        return Check(name, None if name in _OPTIONAL else False, "is not installed", remedy)
    lacks_system_library = name == "cv2" and ".so" in text
    return Check(name, False, f"does not import: {text}", OPENCV_REMEDY if lacks_system_library else remedy)


def requirement(distribution: str) -> str:
    """What our package asks of a distribution, as `torch<2.14,>=2.8`; only its name where our package is not installed."""
    try:
        lines = metadata.requires("vjepa2cli") or []
    except metadata.PackageNotFoundError:
        lines = []
    wanted = [line.partition(";")[0].strip() for line in lines]
    return next((line for line in wanted if _name_of(line) == distribution), distribution)


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version lies within the bounds (`>=`, `<`) of a requirement; local and pre-release parts are ignored."""
    found = _release(version)
    for bound in wanted[len(_name_of(wanted)) :].split(","):
        limit = _release(bound.strip(" <>="))
        if (bound.strip().startswith(">=") and found < limit) or (bound.strip().startswith("<") and found >= limit):
            return False
    return True


def _name_of(line: str) -> str:
    return line[: next((index for index, letter in enumerate(line) if letter in " <>=!~[;"), len(line))]


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
