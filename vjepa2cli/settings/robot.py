"""A robot in words and numbers: what its recordings hold, and how they become the state that a world model reads."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vjepa2cli.settings.sections import Positive, Section

Unit = Literal["m", "cm", "mm", "rad", "deg", "m/s", "rad/s", "deg/s", "N", "Nm", "share"]
"""`share` has no unit: a gripper between open and closed, a switch."""
Frame = Literal["base", "world", "tool", "joint", "none"]
Convention = Literal["plain", "euler_xyz", "euler_XYZ", "quaternion_xyzw", "quaternion_wxyz", "rotation_vector", "rotation_6d"]
Meaning = Literal["absolute", "delta", "velocity"]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Box = tuple[float, float, float, float]

_WIDTHS: dict[str, int] = {
    "euler_xyz": 3,
    "euler_XYZ": 3,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "rotation_vector": 3,
    "rotation_6d": 6,
}


class NumbersConfig(Section):
    """Successive numbers of one kind.

    frame: what positions and rotations refer to; `joint` for joint angles. convention: how successive numbers make a rotation:
    Euler angles about fixed axes x, y, z (`euler_xyz`) or about turned ones (`euler_XYZ`), quaternions by the place of w, a
    rotation vector, or the first two columns of the matrix (`rotation_6d`). wraps: an angle that comes round at pi.
    """

    names: Names
    unit: Unit
    frame: Frame = "none"
    convention: Convention = "plain"
    wraps: bool = False
    limits: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width = _WIDTHS.get(self.convention)
        if width is not None and len(self.names) != width:
            raise ValueError(f"{', '.join(self.names)}: {self.convention} has {width} numbers, not {len(self.names)}")
        if self.wraps and self.unit not in ("rad", "deg"):
            raise ValueError(f"{', '.join(self.names)}: only angles come round; wraps does not go with unit {self.unit}")
        if self.limits is not None and self.limits[0] >= self.limits[1]:
            raise ValueError(f"{', '.join(self.names)}: limits: {self.limits[0]:g} is not below {self.limits[1]:g}")
        return self


class CommandNumbersConfig(NumbersConfig):
    """Successive numbers of an action: where to go (`absolute`), how far from here (`delta`), or how fast (`velocity`)."""

    meaning: Meaning


class StateConfig(Section):
    """Where the state lies in a recording, and what its numbers are, in order. `keys` of several arrays are joined."""

    keys: Names
    numbers: Annotated[tuple[NumbersConfig, ...], Field(min_length=1)]


class ActionConfig(Section):
    """Where the commands lie, and what their numbers are; a number that commands one of the state's has its name.

    Without `numbers` they are the state's, as absolute targets.
    """

    keys: Names
    numbers: Annotated[tuple[CommandNumbersConfig, ...], Field(min_length=1)] | None = None


class GripperConfig(Section):
    """The number that tells the gripper, and its values when it is open and when it is closed."""

    name: str
    open: float
    closed: float

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.open == self.closed:
            raise ValueError(f"gripper: open and closed are both {self.open:g}")
        return self


class EndEffectorConfig(Section):
    """How the seven numbers of an end effector are made: names of three positions, of a rotation's numbers, and the gripper."""

    position: Annotated[tuple[str, ...], Field(min_length=3, max_length=3)]
    rotation: Names
    gripper: GripperConfig | None = None


class CameraConfig(Section):
    """Where the pictures of a camera lie, and what is kept of them.

    crop: left, top, right and bottom edge as shares of the width and the height. bgr: blue comes first.
    """

    key: str
    crop: Box = (0.0, 0.0, 1.0, 1.0)
    bgr: bool = False

    @model_validator(mode="after")
    def _inside(self) -> Self:
        left, top, right, bottom = self.crop
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"crop: {list(self.crop)} is not left < right and top < bottom within 0 to 1")
        return self


class RobotConfig(Section):
    """A robot: what every number of its recordings is, and what of it a world model reads as the state.

    That is either `end_effector`, the seven numbers of a hand, or `own_numbers`, names of numbers of the state, `all` for every
    one. rate: rows a second, where a recording does not say. episodes: groups of an HDF5 file that are an episode each, such as
    `data/*`; without it a file is one. instruction: where it lies, in the formats that have no place of their own for it.
    """

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    rate: Positive | None = None
    state: StateConfig
    action: ActionConfig | None = None
    end_effector: EndEffectorConfig | None = None
    own_numbers: Names | Literal["all"] | None = None
    cameras: dict[str, CameraConfig] = Field(default_factory=dict)
    episodes: str | None = None
    instruction: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        groups = {name: group for group in self.state.numbers for name in group.names}
        for numbers, where in ((self.state.numbers, "state"), ((self.action and self.action.numbers) or (), "action")):
            names = [name for group in numbers for name in group.names]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(
                    f"{where}.numbers: {', '.join(sorted(twice))} is named twice; every number has a name of its own"
                )
        if (self.end_effector is None) == (self.own_numbers is None):
            raise ValueError(
                "says nothing, or two things, of what a world model reads; add 'end_effector: {position: [x, y, z], "
                "rotation: [roll, pitch, yaw], gripper: {name: gripper, open: 0, closed: 1}}' or 'own_numbers: all'"
            )
        if self.end_effector is not None:
            _check_end_effector(self.end_effector, groups)
        elif self.own_numbers != "all" and (unknown := [name for name in self.own_numbers or () if name not in groups]):
            raise ValueError(f"own_numbers: {', '.join(unknown)} is not among the state's: {', '.join(groups)}")
        return self


def _check_end_effector(chosen: EndEffectorConfig, groups: dict[str, NumbersConfig]) -> None:
    gripper = () if chosen.gripper is None else (chosen.gripper.name,)
    for name in (*chosen.position, *chosen.rotation, *gripper):
        if name not in groups:
            raise ValueError(f"end_effector: {name} is not among the state's: {', '.join(groups)}")
    for name in chosen.position:
        if groups[name].unit not in ("m", "cm", "mm") or groups[name].frame not in ("base", "world"):
            raise ValueError(
                f"end_effector.position: {name} is in {groups[name].unit}, frame {groups[name].frame}; "
                "a hand's position is a length in the frame base or world"
            )
    rotation = groups[chosen.rotation[0]]
    if rotation.names != chosen.rotation or rotation.convention == "plain" or rotation.frame not in ("base", "world"):
        raise ValueError(
            f"end_effector.rotation: {', '.join(chosen.rotation)} is no rotation in the frame base or world; give these names "
            f"one entry of state.numbers, with 'frame: base' and 'convention: {' | '.join(_WIDTHS)}'"
        )
