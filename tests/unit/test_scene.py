"""What a scene's config changes, and what it leaves alone; and that the look of an episode is a function of its seed."""

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from vjepa2cli.errors import DependencyError
from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.patterns import draw_pattern
from vjepa2cli.simulation.scene import (
    COLOURS,
    NUM_PATTERNS,
    SHAPES,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Wandering,
    sample_scene,
)
from vjepa2cli.simulation.shifts import SHIFTS, shifted
from vjepa2cli.simulation.tabletop import Tabletop

HARD = SceneConfig(textures="varied", gripper="small", movers=2, light_jitter=0.3, camera_jitter=0.02)
Open = Callable[[SceneConfig], Tabletop]


@pytest.fixture(scope="module")
def open_tabletop() -> Iterator[Open]:
    """Opens a tabletop once for each config; skips where nothing can be drawn."""
    opened: dict[SceneConfig, Tabletop] = {}

    def get(config: SceneConfig) -> Tabletop:
        try:
            return opened.setdefault(config, Tabletop(image_size=64, scene=config))
        except DependencyError as error:
            pytest.skip(str(error))

    yield get
    for tabletop in opened.values():
        tabletop.close()


def frame_of(tabletop: Tabletop, seed: int, moment: int = 0) -> NDArray[np.int64]:
    return tabletop.reset(seed=seed, state=np.array([0.5, 0, 0.15, 0, 0, 0, 0]), moment=moment).frame.astype(np.int64)


def test_each_key_changes_what_it_names_and_nothing_else() -> None:
    plain = sample_scene(4, SceneConfig(num_objects=3, light_jitter=0.0))
    changes = {
        "camera_jitter": (0.02, {"camera_position", "camera_target"}),
        "camera_shift": (0.08, {"camera_position"}),
        "light_jitter": (0.2, {"lamp_position", "lamp_colour", "ambient"}),
        "light_shift": (0.6, {"lamp_position", "lamp_colour", "ambient"}),
        "textures": ("varied", {"table", "wall"}),
        "movers": (2, {"movers"}),
        "unseen_objects": (True, {"objects"}),
        "gripper": ("small", set()),
        "goal_light_shift": (0.6, set()),
    }
    for key, (value, touched) in changes.items():
        changed = sample_scene(4, SceneConfig.model_validate({"num_objects": 3, "light_jitter": 0.0, key: value}))
        different = {name for name, old in vars(plain).items() if repr(old) != repr(getattr(changed, name))}
        assert different == touched, key


def test_a_shifted_camera_is_just_so_far_away_and_a_goal_has_its_own_light() -> None:
    for seed in range(20):
        at = [sample_scene(seed, SceneConfig(camera_shift=shift)).camera_position for shift in (0.0, 0.08)]
        assert np.linalg.norm(at[1] - at[0]) == pytest.approx(0.08)
        config = SceneConfig(goal_light_shift=0.5)
        now, goal = (sample_scene(seed, config, moment=moment) for moment in (0, 1))
        assert 0.3 < abs(goal.lamp_colour.mean() / now.lamp_colour.mean() - 1) < 0.8
        assert repr(now) == repr(sample_scene(seed, SceneConfig()))


def test_unseen_objects_share_no_shape_and_no_colour_with_the_others() -> None:
    seen = [item for seed in range(30) for item in sample_scene(seed, SceneConfig(num_objects=4)).objects]
    unseen = [item for seed in range(30) for item in sample_scene(seed, SceneConfig(unseen_objects=True)).objects]
    assert {item.shape for item in seen} == set(SHAPES)
    assert {item.colour for item in seen} == set(COLOURS)
    assert not {item.shape for item in seen} & {item.shape for item in unseen}
    assert not {item.colour for item in seen} & {item.colour for item in unseen}


def test_wandering_stays_in_view_beside_the_workspace_and_is_not_foreseeable() -> None:
    scenes = [sample_scene(seed, HARD) for seed in range(20)]
    for seed, scene in enumerate(scenes):
        for index, mover in enumerate(scene.movers):
            first, same, other = (Wandering(mover, seed=seed, index=index, moment=moment) for moment in (0, 0, 1))
            assert (first.place != other.place).all()
            for _ in range(20):
                first.step()
                same.step()
                assert (first.place == same.place).all()
                inside = (first.place > WORKSPACE_LOW[:2]) & (first.place < WORKSPACE_HIGH[:2])
                assert not inside.all()
                assert (first.place >= mover.roamed[:2]).all()
                assert (first.place <= mover.roamed[2:]).all()


def test_patterns_differ_and_have_no_seam() -> None:
    patterns = [draw_pattern(number).astype(int) for number in range(NUM_PATTERNS)]
    assert len({pattern.tobytes() for pattern in patterns}) == NUM_PATTERNS
    assert min(pattern.std(axis=(0, 1)).max() for pattern in patterns) > 10
    clouds = patterns[0]
    assert np.abs(clouds[0] - clouds[-1]).max() < 20


def test_every_shift_shows_in_the_picture_it_is_meant_for(open_tabletop: Open) -> None:
    base = SceneConfig(light_jitter=0.0)
    plain = open_tabletop(base)
    for name in SHIFTS:
        tabletop = open_tabletop(shifted(base, name))
        now, goal = (
            np.mean([np.abs(frame_of(tabletop, seed, moment) - frame_of(plain, seed, moment)).mean() for seed in range(2)])
            for moment in (0, 1)
        )
        assert (now > 0.5) == (name not in ("none", "goal_light")), name
        assert (goal > 0.5) == (name != "none"), name


def test_varied_scenes_look_alike_for_a_seed_and_unlike_for_two(open_tabletop: Open) -> None:
    tabletop = open_tabletop(HARD)
    frames = [frame_of(tabletop, seed) for seed in range(5)]
    with closing(Tabletop(image_size=64, scene=HARD)) as another:
        assert (frame_of(another, 3) == frames[3]).all()
    apart = [np.abs(one - other).mean() for index, one in enumerate(frames) for other in frames[:index]]
    same_table = [frame_of(open_tabletop(SceneConfig()), seed) for seed in range(5)]
    near = [np.abs(one - other).mean() for index, one in enumerate(same_table) for other in same_table[:index]]
    assert min(apart) > max(near)


def test_the_small_gripper_fills_less_of_the_picture(open_tabletop: Open) -> None:
    def gripper_pixels(kind: str) -> int:
        tabletop = open_tabletop(SceneConfig.model_validate({"gripper": kind, "num_objects": 0}))
        near, far = (tabletop.reset(seed=0, state=np.array([0.5, 0, 0.15, 0, 0, 0, grip])).frame for grip in (0.0, 1.0))
        return int((np.abs(near.astype(int) - far).max(axis=-1) > 30).sum())

    assert 0 < gripper_pixels("small") < 0.7 * gripper_pixels("large")


def test_movers_go_on_while_the_arm_rests_and_push_nothing(open_tabletop: Open) -> None:
    tabletop = open_tabletop(SceneConfig(movers=2))
    for seed in range(3):
        first = frame_of(tabletop, seed)
        before = tabletop.object_positions()
        for _ in range(4):
            last = tabletop.step(np.zeros(7)).frame.astype(int)
        assert np.abs(last - first).max() > 30
        assert np.abs(tabletop.object_positions() - before).max() < 1e-3
