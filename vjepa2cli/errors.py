"""The exceptions a user can meet: each message says what is wrong, where, what is allowed, and the remedy, in one line.

The command line turns a `Vjepa2Error` into that one line and exit code 1. Anything else that escapes is a defect of ours.
"""

from typing import NamedTuple


class Vjepa2Error(Exception):
    """Base of every error that the user can do something about; `told` where another process of the group tells it."""

    told = False


class ConfigError(Vjepa2Error):
    """A configuration is misspelt, out of range, or not the one a run was started with."""


class InputError(Vjepa2Error):
    """An input that the user named cannot be used."""


class VideoError(InputError):
    """A file cannot be decoded as video or image."""


class RecordingError(InputError):
    """A robot recording is damaged, incomplete, or in no layout we know."""


class ArtifactError(Vjepa2Error):
    """An artefact of ours is absent, incomplete, damaged, or belongs to something else."""


class StaleArtifactError(ArtifactError, ConfigError):
    """An output was begun under another config or from other inputs; `--replace` starts it over."""


class KeyFault(NamedTuple):
    """A key of a checkpoint that does not fit: kind is missing, unexpected or misshapen; found and wanted are shapes or "-"."""

    kind: str
    key: str
    found: str
    wanted: str


class WeightsError(Vjepa2Error):
    """A checkpoint cannot be found, or its tensors do not fit the network: then `faults` are all the keys that do not."""

    def __init__(self, message: str, *, faults: tuple[KeyFault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class DependencyError(Vjepa2Error):
    """A library, a system package or a device that this command needs is not there."""


class TrainingError(Vjepa2Error):
    """Training cannot go on: non-finite values, a refused process group, a run that another process holds."""


class StoppedError(Vjepa2Error):
    """A signal asked a training to end; its state is saved, and the same command goes on. Exit code 75, as for a requeue."""


class PlanningError(Vjepa2Error):
    """A plan cannot be made: an untrained model, a missing state, an action outside the robot's space."""
