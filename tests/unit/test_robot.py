"""Descriptions of robots: numbers without units are refused, and whatever is recorded becomes metres, radians and rotations."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli import config
from vjepa2cli.data.poses import euler_angles, rotation_matrix
from vjepa2cli.data.robot_numbers import remarks, state_space, to_commands, to_states
from vjepa2cli.data.rotations import matrices
from vjepa2cli.data.state_space import END_EFFECTOR
from vjepa2cli.errors import ConfigError, RecordingError
from vjepa2cli.settings.robot import RobotConfig

HAND = """
name: mine
state:
  keys: [pose]
  numbers:
    - {names: [x, y, z], unit: cm, frame: base, limits: [-100, 100]}
    - {names: [a, b, c], unit: deg, frame: base, convention: euler_xyz}
    - {names: [width], unit: mm}
end_effector: {position: [x, y, z], rotation: [a, b, c], gripper: {name: width, open: 80, closed: 0}}
"""
JOINTS = """
name: arm
state:
  keys: [q]
  numbers:
    - {names: [shoulder, elbow], unit: deg, frame: joint}
    - {names: [wrist], unit: deg, frame: joint, wraps: true}
    - {names: [lift], unit: mm, limits: [0, 500]}
own_numbers: [wrist, lift]
"""


def robot(tmp_path: Path, text: str) -> RobotConfig:
    (tmp_path / "robot.yaml").write_text(text)
    return config.load_robot(tmp_path / "robot.yaml")


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        robot(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shipped_robots_are_valid_and_say_what_a_world_model_reads() -> None:
    widths = {name: state_space(config.load_robot(name)).width for name in config.robot_names()}
    assert widths == {"bridge": 7, "droid": 7, "g1": 26, "gr1-sim": 26, "tabletop": 7}
    assert state_space(config.load_robot("droid")) == END_EFFECTOR == state_space(None)


def test_number_without_a_unit_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    message = refusal(tmp_path, HAND.replace(", unit: deg", ""))
    assert "state.numbers.1: has no unit; add 'unit: rad' to ['a', 'b', 'c'], or whichever of m, cm, mm, rad, deg" in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("unit: mm", "unit: inch", "state.numbers.2.unit: 'inch' is refused"),
        ("convention: euler_xyz", "convention: quaternion_xyzw", "a, b, c: quaternion_xyzw has 4 numbers, not 3"),
        ("convention: euler_xyz", "convention: plain", "is no rotation in the frame base or world"),
        ("unit: cm, frame: base", "unit: cm, frame: tool", "x is in cm, frame tool"),
        ("unit: cm, frame: base", "unit: rad, frame: base", "x is in rad, frame base"),
        ("position: [x, y, z]", "position: [x, y, q]", "end_effector: q is not among the state's: x, y, z, a, b, c, width"),
        ("open: 80", "open: 0", "open and closed are both 0"),
        ("names: [width]", "names: [x]", "x is named twice"),
        ("name: mine", "nmae: mine", "nmae: unknown key; did you mean 'name'?"),
        ("limits: [-100, 100]", "limits: [100, -100]", "100 is not below -100"),
        ("end_effector:", "own_numbers: all\nend_effector:", "says nothing, or two things"),
    ],
)
def test_faulty_description_is_refused_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert says in refusal(tmp_path, HAND.replace(old, new))


def test_unknown_robot_names_its_nearest_neighbour() -> None:
    with pytest.raises(ConfigError, match="neither a file nor a shipped robot; did you mean 'droid'"):
        config.load_robot("droit")


def test_end_effector_is_made_of_centimetres_degrees_and_a_width(tmp_path: Path) -> None:
    rows = np.array([[30, -5, 12, 90, 0, -45, 80], [30, -5, 12, 179, 10, 0, 20.0]])
    states = to_states(robot(tmp_path, HAND), rows, where="e")
    expected = [0.3, -0.05, 0.12, math.pi / 2, 0, -math.pi / 4, 0]
    assert states[0] == pytest.approx(expected, abs=1e-6)
    assert states[1, 6] == pytest.approx(0.75)


def test_own_numbers_are_chosen_and_brought_to_metres_and_radians(tmp_path: Path) -> None:
    described = robot(tmp_path, JOINTS)
    states = to_states(described, np.array([[1.0, 2.0, 90.0, 250.0]]), where="e")
    assert states.tolist() == [pytest.approx([math.pi / 2, 0.25])]
    space = state_space(described)
    assert (space.kind, space.names, space.units, space.wraps) == ("own", ("wrist", "lift"), ("rad", "m"), (True, False))
    assert space.limits == (None, (0.0, 0.5))


def test_commands_have_the_state_s_numbers_unless_they_have_their_own(tmp_path: Path) -> None:
    own = "action: {keys: [v], numbers: [{names: [lift], unit: mm, meaning: delta}]}\n"
    assert to_commands(robot(tmp_path, JOINTS + own), np.array([[5.0]]), where="e").tolist() == [[pytest.approx(0.005)]]
    same = robot(tmp_path, JOINTS + "action: {keys: [v]}\n")
    assert to_commands(same, np.array([[180.0, 90, 0, 1000]]), where="e").tolist() == [pytest.approx([0, 1])]


def test_rows_of_another_robot_and_other_units_are_refused(tmp_path: Path) -> None:
    described = robot(tmp_path, HAND)
    with pytest.raises(RecordingError, match=r"e: pose: rows \[4, 6\], but robot.yaml says what 7 numbers are"):
        to_states(described, np.zeros((4, 6)), where="e")
    metres = np.tile([40000.0, 0, 0, 0, 0, 0, 0], (4, 1))
    with pytest.raises(RecordingError, match="x is 400 m in the middle of its rows, far from its limits -1 to 1; mend its unit"):
        to_states(described, metres, where="e")
    spoilt = np.zeros((4, 7))
    spoilt[2, 3] = np.nan
    with pytest.raises(RecordingError, match="row 2 is not finite"):
        to_states(described, spoilt, where="e")


def test_what_comes_round_and_what_leaves_its_limits_is_said(tmp_path: Path) -> None:
    rows = np.tile([10.0, 170.0, 170.0, 100.0], (6, 1))
    rows[3:, 1:3] = -170
    rows[5, 3] = 600
    shoulder, wrist, lift = remarks(robot(tmp_path, JOINTS), rows)
    assert "elbow jumps by -5.93 rad after row 2; if it comes round at pi, add 'wraps: true'" in shoulder
    assert "wrist comes round at pi in 1 steps" in wrist
    assert "lift leaves its limits 0 to 0.5 m in 1 of 6 rows, to 0.6" in lift
    radians = robot(tmp_path, JOINTS.replace("unit: deg", "unit: rad"))
    assert "shoulder reaches 90 rad; if these are degrees, write 'unit: deg'" in remarks(radians, np.full((2, 4), 90.0))


def random_rotations(count: int = 40) -> torch.Tensor:
    angles = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 * math.pi - math.pi
    return rotation_matrix(angles)


def test_every_convention_gives_the_rotation_that_it_was_made_of() -> None:
    """Numbers of each convention are made from matrices by formulas of their own, and read back."""
    wanted = random_rotations()
    trace = wanted.diagonal(dim1=-2, dim2=-1).sum(-1)
    w = (1 + trace).clamp(min=1e-12).sqrt() / 2
    v = torch.stack([wanted[:, 2, 1] - wanted[:, 1, 2], wanted[:, 0, 2] - wanted[:, 2, 0], wanted[:, 1, 0] - wanted[:, 0, 1]], -1)
    v = v / (4 * w[:, None])
    angle = torch.arccos((trace - 1) / 2)[:, None]
    # Read off the entries of Rx(a) Ry(b) Rz(c).
    turned = torch.stack(
        [
            torch.atan2(-wanted[:, 1, 2], wanted[:, 2, 2]),
            torch.asin(wanted[:, 0, 2]),
            torch.atan2(-wanted[:, 0, 1], wanted[:, 0, 0]),
        ],
        dim=-1,
    )
    numbers = {
        "euler_xyz": euler_angles(wanted),
        "euler_XYZ": turned,
        "quaternion_xyzw": torch.cat((v, w[:, None]), -1) * 3,
        "quaternion_wxyz": -torch.cat((w[:, None], v), -1),
        "rotation_vector": v / v.norm(dim=-1, keepdim=True) * angle,
        "rotation_6d": torch.cat((wanted[:, :, 0] * 2, wanted[:, :, 1] + 0.3 * wanted[:, :, 0]), -1),
    }
    for convention, given in numbers.items():
        assert (matrices(given, convention) - wanted).abs().max() < 1e-6, convention  # type: ignore[arg-type]
    still = matrices(torch.zeros(1, 3, dtype=torch.float64), "rotation_vector")
    assert torch.equal(still[0], torch.eye(3, dtype=torch.float64))
