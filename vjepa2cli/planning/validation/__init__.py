"""`validate`: is this world model any good, and for what? Told from held-out recordings, without a robot."""

from vjepa2cli.planning.validation.run import validate

__all__ = ["validate"]
