"""Each measurement tells a world that knows from one that does not, and says by how much."""

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.errors import ArtifactError, InputError, PlanningError
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.validation.familiarity import familiarity
from vjepa2cli.planning.validation.film import film
from vjepa2cli.planning.validation.held_out import held_out_windows, moves, moving, reach, rivals
from vjepa2cli.planning.validation.landscapes import landscapes, map_axes
from vjepa2cli.planning.validation.numbers import inversion_config, invert, minima, recovered, sweep_numbers
from vjepa2cli.planning.validation.prediction import describe_step, prediction_errors
from vjepa2cli.planning.validation.ranking import rank_recorded
from vjepa2cli.settings import CemConfig, ValidateConfig

from .conftest import LinearWorld

CONFIG = ValidateConfig(
    horizon=3,
    max_windows=20,
    num_ranked=6,
    num_rivals=20,
    num_sweeps=20,
    num_inversions=16,
    num_maps=2,
    map_points=7,
    cem=CemConfig(samples=64, iterations=6, elites=6, plan_gripper=False),
)


@pytest.fixture
def store(write_latents):
    return LatentStore.open(write_latents())


@pytest.fixture
def windows(store):
    return held_out_windows(store, CONFIG)


def controller(*use: float) -> Controller:
    return Controller(LinearWorld(*use), inversion_config(CONFIG.cem))  # type: ignore[arg-type]


@pytest.mark.parametrize("use", [1.0, 0.0, -1.0, 3.0])
def test_errors_stand_beside_what_knows_less(windows, use: float):
    errors = prediction_errors(LinearWorld(use, use, use, use), windows)  # type: ignore[arg-type]
    step = describe_step(errors, 0, episodes=windows.episodes, seed=0)
    copy = step["error"]["copy"]
    assert step["error"]["model"] == pytest.approx(abs(use - 1) * copy, abs=1e-6)
    assert step["error"]["no_action"] == pytest.approx(copy, abs=1e-6)
    assert (step["below_copy"]["interval"][0] > 0) == (use == 1)
    assert (step["below_shuffled"]["interval"][0] > 0) == (use > 0)
    last = describe_step(errors, 2, episodes=windows.episodes, seed=0)
    if use in (0.0, -1.0):  # What is wrong adds up; from the truth it is as wrong as ever.
        fresh = np.abs(use - 1) * errors["copy"][:, 0].mean()
        assert last["error"]["one_step"] == pytest.approx(fresh, rel=0.35)
        assert last["drift"] == pytest.approx(last["error"]["model"] / last["error"]["one_step"])
        assert last["drift"] > 1.2


def test_shuffled_actions_are_never_the_window_s_own(store):
    """A world that knows everything errs with every shuffled window, also where there are only two."""
    for count in (2, 3, 9):
        some = held_out_windows(store, CONFIG.model_copy(update={"max_windows": count}))
        errors = prediction_errors(LinearWorld(1, 1, 1, 1), some)  # type: ignore[arg-type]
        assert errors["model"].max() < 1e-5 < errors["shuffled"].min()


def test_windows_lie_in_the_split_and_do_not_overlap(store, windows):
    assert windows.episodes.tolist() == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert windows.starts.tolist() == [0, 3, 6] * 3
    assert torch.equal(windows.latents[1], torch.from_numpy(store.tokens(2, 3, 7)))
    assert torch.equal(windows.actions[1], torch.from_numpy(store.actions(2)[3:6]))
    assert torch.equal(windows.states[1], torch.from_numpy(store.states(2)[3:6]))
    assert len(held_out_windows(store, CONFIG.model_copy(update={"max_windows": 4})).episodes) == 4
    with pytest.raises(InputError, match="0 windows of 13 steps in 3 episodes"):
        held_out_windows(store, CONFIG.model_copy(update={"horizon": 12}))


def test_moves_are_told_by_how_far_a_number_goes(store, windows, write_latents):
    """A number that never moves has no moves, whatever its noise; one that moves seldom is measured by its moves."""
    far = reach(store)
    assert far[:3] == pytest.approx([0.05] * 3, rel=0.1)
    assert far[3:6].tolist() == [0, 0, 0]
    moved = moving(windows.actions, far)
    assert not moved[..., 3:6].any()
    assert moved[..., 6].all()
    trembling = write_latents("trembling.h5", tremble=0.002)
    assert reach(LatentStore.open(trembling))[2] == 0, "z goes a twenty-fifth as far as x"
    assert (moved[..., 0] == (windows.actions[..., 0].abs() >= far[0] / 4).numpy()).all()


def test_rivals_were_recorded_elsewhere(store, windows):
    own = windows.actions[4]
    drawn = rivals(store, windows, 4, count=200, seed=0)
    assert drawn.shape == (200, 3, 7)
    recorded = {index: store.actions(index) for index in range(5)}
    starts = {
        (index, start)
        for sequence in drawn.numpy()
        for index, actions in recorded.items()
        for start in range(7)
        if np.array_equal(actions[start : start + 3], sequence)
    }
    assert len(starts) > 20
    assert not {(3, start) for start in range(1, 6)} & starts, "the window is that of episode 3 from step 3 on"
    assert not any(torch.equal(own, sequence) for sequence in drawn)


def test_recorded_action_comes_first_in_a_world_that_knows_and_anywhere_in_one_that_does_not(store, windows):
    known = rank_recorded(controller(1, 1, 1, 1), store, windows, config=CONFIG)
    assert [row["steps"] for row in known] == [1, 2, 3]
    assert all(row["percentile"]["mean"] == 1 and row["rank"]["median"] == 1 and row["first"] == 6 for row in known)
    blind = rank_recorded(controller(0, 0, 0, 0), store, windows, config=CONFIG)
    assert all(row["percentile"]["mean"] == 0.5 for row in blind), "of ties one half"
    wrong = rank_recorded(controller(-1, -1, -1, -1), store, windows, config=CONFIG)
    assert wrong[0]["percentile"]["mean"] < 0.4


def test_sweep_finds_which_way_each_number_went(store, windows):
    """A world that does not know z leaves z alone to chance, and the gripper is seen although planning never moves it."""
    single, far = moves(windows), reach(store)
    x, _, z, *turns, gripper = sweep_numbers(controller(1, 1, 0, 1), single, far, config=CONFIG)
    assert turns == [None] * 3
    for found in (x, gripper):
        assert found["sign"]["rate"] == 1
        assert found["correlation"] > 0.9
        assert found["left_out"]["interval"][0] > 0
        assert np.argmin(found["forward"]) > 5 > np.argmin(found["backward"])
    assert z["correlation"] is None or abs(z["correlation"]) < 0.5
    assert z["left_out"]["mean"] == pytest.approx(0, abs=1e-6)
    _, _, backwards, *_ = sweep_numbers(controller(1, 1, -1, 1), single, far, config=CONFIG)
    assert backwards["sign"]["rate"] == 0


def test_minimum_lies_between_the_values():
    values = torch.linspace(-1, 1, 9, dtype=torch.float64)
    for vertex in (-0.93, -0.4, 0.0, 0.31, 0.7):
        found = minima((values - vertex).square().unsqueeze(0), values)
        assert float(found) == pytest.approx(vertex, abs=1e-9 if abs(vertex) < 0.9 else 0.25)
    assert minima(values.unsqueeze(0), values).tolist() == [-1]
    assert minima(-values.unsqueeze(0), values).tolist() == [1]


def test_planning_recovers_what_the_world_knows(store, windows):
    single, far = moves(windows), reach(store)
    found = invert(controller(1, 1, 0, 1), single, far, config=CONFIG)
    assert found is not None
    assert list(found["numbers"]) == ["x", "y", "z"]
    x, z = found["numbers"]["x"], found["numbers"]["z"]
    assert x["sign"]["rate"] == 1
    assert x["error"]["mean"] < x["magnitude"] / 3, "what the gripper did is no move of the planner's"
    assert x["below_nothing"]["interval"][0] > 0
    assert z["below_nothing"]["interval"][0] < 0
    assert found["outside_box"] == 0
    narrow = Controller(LinearWorld(1, 1, 1, 1), CONFIG.cem.model_copy(update={"max_translation": 0.03}))  # type: ignore[arg-type]
    outside = invert(narrow, single, far, config=CONFIG)
    assert outside is not None
    assert outside["outside_box"] > 0
    held = Controller(LinearWorld(1, 1, 1, 1), CONFIG.cem.model_copy(update={"pinned": dict.fromkeys("xyz", 0.0)}))  # type: ignore[arg-type]
    assert invert(held, single, far, config=CONFIG) is None


def test_answers_are_measured_number_by_number():
    true, found = np.array([0.03, -0.04, 0.1, 0.001]), np.array([0.03, 0.04, 0.05, 0.0])
    summary = recovered(true, found, counted=np.abs(true) > 0.005, episodes=np.array([0, 0, 1, 1]), key=[0])
    assert summary["error"]["mean"] == pytest.approx((0 + 0.08 + 0.05 + 0.001) / 4)
    assert summary["magnitude"] == pytest.approx((0.03 + 0.04 + 0.1 + 0.001) / 4)
    assert (summary["sign"]["successes"], summary["sign"]["n"]) == (2, 3)
    assert summary["error"]["interval"][0] < summary["error"]["mean"] < summary["error"]["interval"][1]


def test_landscape_is_least_where_the_recorded_action_lies(store, windows):
    single, far = moves(windows), reach(store)
    control = controller(1, 1, 1, 1)
    axes = map_axes(control, single, far, CONFIG)
    assert axes == ("x", "y", "z")
    drawn = landscapes(control, single, far, axes=axes, config=CONFIG)
    assert [found["axes"] for found in drawn] == [["x", "y"], ["x", "z"], ["y", "z"]] * 2
    for found in drawn:
        energies = np.array(found["energies"])
        row, column = np.unravel_index(energies.argmin(), energies.shape)
        width = found["values"][0][1] - found["values"][0][0]
        assert found["values"][0][column] == pytest.approx(found["planned"][0], abs=width)
        assert found["values"][1][row] == pytest.approx(found["planned"][1], abs=width)
    for named, reason in (
        (("x", "w"), "map_axes: this robot has no axis 'w'"),
        (("x", "yaw"), "does not move yaw; it moves x, y, z"),
        (("x", "x"), "names an axis twice"),
    ):
        with pytest.raises(PlanningError, match=reason):
            map_axes(control, single, far, CONFIG.model_copy(update={"map_axes": named}))


def test_foreign_recordings_lie_far_from_the_training(write_latents):
    world, store = LinearWorld(1, 1, 1, 1), LatentStore.open(write_latents(splits=["train"] * 12 + ["val"] * 3))
    windows = held_out_windows(store, CONFIG)
    near = familiarity(world, windows, store, config=CONFIG)  # type: ignore[arg-type]
    assert near["within"] > 0.7
    assert near["training_steps"] == 120
    strange = LatentStore.open(write_latents("far.h5", splits=("val", "val"), offset=5.0))
    far = familiarity(world, held_out_windows(strange, CONFIG), store, config=CONFIG)  # type: ignore[arg-type]
    assert far["within"] == 0
    assert far["held_out"]["median"] == pytest.approx(5, abs=1)
    true = [row["recorded"] for row in near["rollout"]]
    assert [row["imagined"] for row in near["rollout"]] == pytest.approx(true, rel=1e-4), "a perfect world imagines what comes"


def test_film_shows_the_liveliest_stretch_and_the_frames_nearest_to_it(tiny_world_model, training_stores):
    """Latents of the tests of plans: episode c is held out, and step 2 of a film lies two frames of its video further on."""
    from vjepa2cli.planning.model_card import open_world_model

    latents, videos = training_stores
    world, _ = open_world_model(tiny_world_model())
    store = LatentStore.open(latents)
    found = film(world, store, store, videos, np.ones(7), config=ValidateConfig(film_steps=3))
    assert (found["episode"], len(found["known"]), len(found["imagined"])) == ("c", 4, 3)
    assert [row["frame"] for row in found["recorded"]] == [0, 2, 4, 6]
    assert {row["episode"] for row in found["known"]} <= {"a", "b"}
    training = torch.cat([torch.from_numpy(store.tokens(index)) for index in (0, 1)])
    held_out = torch.from_numpy(store.tokens(2))
    for step, row in enumerate(found["known"]):
        assert row["distance"] == pytest.approx(float((training - held_out[step]).abs().mean((1, 2)).min()), abs=1e-5)


def test_videos_of_other_recordings_are_refused(tiny_world_model, training_stores, write_latents):
    from vjepa2cli.models.weights import encoder_digest, load_encoder
    from vjepa2cli.planning.model_card import open_world_model

    _, videos = training_stores
    world, card = open_world_model(tiny_world_model())
    other = LatentStore.open(write_latents("other.h5", digest=encoder_digest(load_encoder(card.encoder_source))))
    with pytest.raises(ArtifactError, match=r"has no 'other\.h5-.*name the store they were made of"):
        film(world, other, other, videos, np.ones(7), config=CONFIG)
