"""Reach episodes are where they claim to be, and a policy that knows the goal gets there."""

from collections.abc import Iterator

import numpy as np
import pytest

from vjepa2cli.errors import DependencyError, InputError
from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, clearance, sample_scene
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks import Reach


@pytest.fixture(scope="module")
def tabletop() -> Iterator[Tabletop]:
    try:
        environment = Tabletop()
    except DependencyError as error:
        pytest.skip(str(error))
    yield environment
    environment.close()


def test_goals_are_10_to_20_cm_away_inside_the_workspace_and_clear_of_objects() -> None:
    reach = Reach(distance=(0.10, 0.20))
    clear = 0
    for seed in range(60):
        episode = reach.sample(seed)
        assert 0.10 <= reach.remaining(episode.start_state, episode) <= 0.20
        for state in (episode.start_state, episode.goal_state):
            assert (state[:3] >= WORKSPACE_LOW).all()
            assert (state[:3] <= WORKSPACE_HIGH).all()
        assert (episode.start_state[3:] == episode.goal_state[3:]).all()
        scene = sample_scene(episode.scene_seed, SceneConfig())
        clear += min(clearance(state[:3], scene) for state in (episode.start_state, episode.goal_state)) > 0
    assert clear == 60


def test_an_episode_is_a_function_of_its_seed() -> None:
    one, same, other = Reach().sample(3), Reach().sample(3), Reach().sample(4)
    assert one.scene_seed == same.scene_seed != other.scene_seed
    assert (one.goal_state == same.goal_state).all()
    assert (one.goal_state != other.goal_state).any()


def test_the_policy_that_knows_the_goal_reaches_it_and_the_idle_one_does_not(tabletop: Tabletop) -> None:
    reach = Reach(tolerance=0.01)
    for seed in range(5):
        episode = reach.sample(seed)
        observation, goal = reach.begin(tabletop, episode)
        assert reach.succeeded(goal.state, episode)
        assert not reach.succeeded(observation.state, episode)
        for _ in range(4):
            observation = tabletop.step(reach.perfect_action(observation.state, episode, max_translation=0.075))
        assert reach.succeeded(observation.state, episode)
        # Start and goal share the scene, so the picture at the end is the goal's, up to a pixel at the edges.
        assert np.abs(observation.frame.astype(int) - goal.frame).mean() < 2


def test_a_distance_beyond_the_workspace_is_refused() -> None:
    with pytest.raises(InputError, match=r"distance: 0\.1 to 0\.9 m is not within"):
        Reach(distance=(0.1, 0.9))
