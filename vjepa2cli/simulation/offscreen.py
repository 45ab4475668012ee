"""MuJoCo with an offscreen renderer, or one line that says what to install."""

import ctypes
import os
import sys
from types import ModuleType
from typing import Any

from vjepa2cli.errors import DependencyError

_LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_REMEDY = "install one: apt-get install libegl1 (fastest) or libosmesa6"


def import_mujoco() -> ModuleType:
    """Import MuJoCo bound to an offscreen GL: the one MUJOCO_GL names, else EGL, else OSMesa.

    Raises DependencyError where MuJoCo or both GL libraries are absent.
    """
    if not os.environ.get("MUJOCO_GL"):
        if "mujoco" in sys.modules:
            raise DependencyError("mujoco was imported before MUJOCO_GL was chosen; set MUJOCO_GL=egl before Python starts")
        found = next((platform for platform in _LIBRARIES if _loads(platform)), None)
        if found is None:
            raise DependencyError(f"the simulator cannot draw: neither EGL nor OSMesa is here; {_REMEDY}")
        os.environ["MUJOCO_GL"] = found
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise DependencyError("the simulator needs MuJoCo; pip install 'vjepa2cli[sim]'") from None
    except (ImportError, AttributeError, RuntimeError) as error:
        raise _cannot_draw(error) from None
    module: ModuleType = mujoco
    return module


def open_renderer(model: object, *, image_size: int) -> Any:
    """A `mujoco.Renderer` of square images; raises DependencyError where the GL library cannot make a context."""
    mujoco = import_mujoco()
    try:
        return mujoco.Renderer(model, image_size, image_size)
    except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
        raise _cannot_draw(error) from None


def _cannot_draw(error: Exception) -> DependencyError:
    reason = " ".join(str(error).split())
    return DependencyError(f"the simulator cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({reason}); {_REMEDY}")


def _loads(platform: str) -> bool:
    for name in _LIBRARIES[platform]:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
