"""Every task starts undone, can be done by its expert, is a function of its seed, and shows what it asks for."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from vjepa2cli.errors import ConfigError, DependencyError, InputError
from vjepa2cli.settings import ReachConfig, SceneConfig, TaskName, TasksConfig
from vjepa2cli.simulation.environment import Episode
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, clearance, sample_scene
from vjepa2cli.simulation.suites import load_suite
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks import Reach, make_task

SCENE, TASKS = SceneConfig(), TasksConfig()
NAMES: tuple[TaskName, ...] = ("reach", "grasp", "reach_with_object", "pick_and_place", "push")


@pytest.fixture(scope="module")
def tabletop() -> Iterator[Tabletop]:
    try:
        environment = Tabletop(image_size=48)
    except DependencyError as error:
        pytest.skip(str(error))
    yield environment
    environment.close()


def allowed(episode: Episode) -> int:
    return sum(view.actions for view in episode.goals)


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_does_what_a_random_policy_does_not(tabletop: Tabletop, name: TaskName) -> None:
    task = make_task(name, tabletop, TASKS, SCENE)
    by_chance = 0
    for seed in range(3):
        episode = task.prepare(seed)
        observation = episode.begin()
        first = episode.measure()
        assert not first.succeeded
        policy = episode.expert(0.075)
        assert policy is not None
        for _ in range(allowed(episode)):
            observation = tabletop.step(policy(observation))
        last = episode.measure()
        assert last.succeeded, (name, seed, episode.describe())
        assert last.remaining < 0.5 * first.remaining
        # The picture at the end is that of the last goal.
        assert np.abs(observation.frame.astype(int) - episode.goals[-1].frame).mean() < 6
        rng = np.random.default_rng(seed)
        episode.begin()
        for _ in range(allowed(episode)):
            tabletop.advance(np.array([*rng.uniform(-0.075, 0.075, 3), 0, 0, 0, rng.uniform(-0.75, 0.75) * task.plans_gripper]))
        by_chance += episode.measure().succeeded
    assert by_chance < 2


@pytest.mark.parametrize("name", ["grasp", "push"])
def test_an_episode_is_a_function_of_its_seed_and_begins_the_same_every_time(tabletop: Tabletop, name: TaskName) -> None:
    task = make_task(name, tabletop, TASKS, SCENE)
    one, other = task.prepare(3), task.prepare(4)
    same = task.prepare(3)
    assert one.describe() == same.describe() != other.describe()
    assert (one.goals[0].frame == same.goals[0].frame).all()
    first = one.begin()
    tabletop.step(np.full(7, 0.02))
    again = one.begin()
    assert (first.frame == again.frame).all()
    assert (first.state == again.state).all()


def test_pick_and_place_shows_the_object_held_then_over_the_place_then_put_down(tabletop: Tabletop) -> None:
    episode = make_task("pick_and_place", tabletop, TASKS, SCENE).prepare(1)
    assert [view.actions for view in episode.goals] == [4, 10, 4]
    frames = [view.frame.astype(int) for view in episode.goals]
    assert min(np.abs(one - other).mean() for one, other in pairwise(frames)) > 1


def test_letting_go_and_knocking_over_is_no_success(tabletop: Tabletop) -> None:
    carried = make_task("reach_with_object", tabletop, TASKS, SCENE).prepare(0)
    carried.begin()
    assert tabletop.situation().held is not None
    for _ in range(3):
        tabletop.advance(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    assert tabletop.situation().held is None
    assert not carried.measure().succeeded


def test_reaches_are_10_to_20_cm_inside_the_workspace_and_clear_of_objects(tabletop: Tabletop) -> None:
    reach = Reach(tabletop, ReachConfig(), SCENE)
    for seed in range(20):
        episode = reach.prepare(seed)
        assert 0.10 <= np.linalg.norm(episode.start[:3] - episode.goal[:3]) <= 0.20
        assert (episode.start[3:] == episode.goal[3:]).all()
        scene = sample_scene(episode.scene_seed, SCENE)
        for state in (episode.start, episode.goal):
            assert (state[:3] >= WORKSPACE_LOW).all()
            assert (state[:3] <= WORKSPACE_HIGH).all()
            assert clearance(state[:3], scene) > 0


def test_a_distance_beyond_the_workspace_and_a_scene_without_objects_are_refused(tabletop: Tabletop) -> None:
    with pytest.raises(InputError, match=r"distance: 0\.1 to 0\.9 m is not within"):
        Reach(tabletop, ReachConfig(distance=(0.1, 0.9)), SCENE)
    with pytest.raises(InputError, match=r"grasp: no scene of 40 .* give scene\.num_objects of 1 to 3"):
        make_task("grasp", tabletop, TASKS, SceneConfig(num_objects=0)).prepare(0)


def test_suites_that_are_not_there_or_are_none_are_refused(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def nothing():\n    return 3\n")
    for name, reason in (
        ("gymnastics", "is neither 'tabletop' nor MODULE:FUNCTION"),
        ("no_such_module:make", "there is no module 'no_such_module' here"),
        (f"{tmp_path}/absent.py:make", "no such file"),
        (f"{file}:make", "has no function 'make'"),
        (f"{file}:nothing", "returned a int; it must return a vjepa2cli Suite"),
    ):
        with pytest.raises((ConfigError, InputError), match=reason):
            load_suite(name)
