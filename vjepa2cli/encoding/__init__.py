"""Features for people: videos and images become rows with timestamps, and pictures of them.

Names resolve on first use: a process that only decodes imports this package and is to know no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vjepa2cli.encoding.gallery import Pictures
    from vjepa2cli.encoding.run import encode
    from vjepa2cli.encoding.similarity import Point

_HOMES = {"Pictures": "gallery", "Point": "similarity", "encode": "run"}

__all__ = ["Pictures", "Point", "encode"]


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vjepa2cli.encoding' has no attribute {name!r}")
    return getattr(import_module(f"vjepa2cli.encoding.{_HOMES[name]}"), name)
