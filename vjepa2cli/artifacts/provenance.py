"""Where an artefact comes from: the digests that let a success rate be walked back to the video it came from."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vjepa2cli import config as configs
from vjepa2cli.settings import StepConfig

_LIBRARIES = ("vjepa2cli", "torch", "deepspeed", "numpy", "zarr", "h5py", "av", "opencv-python", "mujoco")


def provenance(step: str, config: StepConfig, *, inputs: dict[str, str], seed: int | None = None) -> dict[str, Any]:
    """Describe how an artefact was made, without a clock: config digest, input digests by name, library versions and seed."""
    return {
        "step": step,
        "config_digest": configs.digest(config),
        "config": configs.to_tree(config),
        "inputs": dict(sorted(inputs.items())),
        "seed": seed,
        "versions": {"python": platform.python_version()} | {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
