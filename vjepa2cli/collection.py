"""`collect`: record the tabletop arm in the raw DROID layout, with labelled motion windows beside the episodes."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli import config as configs
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ArtifactError, ConfigError, StaleArtifactError
from vjepa2cli.files import digest_bytes, digest_file, digest_json, write_text
from vjepa2cli.processes import Crew
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.recordings.droid import read_episode, write_episode
from vjepa2cli.settings import CollectConfig
from vjepa2cli.simulation.gestures import GESTURE_FRAMES, play_gesture
from vjepa2cli.simulation.motions import graspable, pushable, sample_motion
from vjepa2cli.simulation.offscreen import import_mujoco
from vjepa2cli.simulation.tabletop import ROBOT, Tabletop

WINDOW_FRAMES, WINDOW_STRIDE = 8, 4
_AXES = (("forward", "back"), ("left", "right"), ("up", "down"))
_LOST = (
    "{}: a worker process was killed, perhaps for want of memory; "
    "run the same command again with fewer --workers, whole episodes are kept"
)
_MOVED, _ASIDE, _STILL, _LIFTED = 0.06, 0.5, 0.01, 0.08


def collect(out: str | Path, *, config: CollectConfig, workers: int = 1, progress: Progress = SILENT) -> Path:
    """Record the episodes of `config` into the folder `out` and return it; whole episodes of an earlier run are kept.

    Writes `episode_*/` in the raw DROID layout, `motion_windows.csv` and, last, `collection.json`. The result is a function of
    the config alone, not of `workers` or of how often the run was stopped. Raises StaleArtifactError where `out` was begun
    under another config, DependencyError without MuJoCo or an offscreen GL.
    """
    out = Path(out)
    _check(config)
    _claim(out, config)
    missing = [index for index in range(config.episodes) if not (out / _name(index)).is_dir()]
    progress.start("collect", total=config.episodes, done=config.episodes - len(missing))
    if missing:
        processes = min(workers, len(missing))
        with Crew(partial(_start, out, config), processes=processes, on_loss=_LOST.format(out)) as crew:
            for _ in crew.each(missing):
                progress.advance()
    progress.finish()
    names = [_name(index) for index in range(config.episodes)]
    windows = [row for name in names for row in _windows_of(out, name)]
    write_text(
        out / "motion_windows.csv", "\n".join(["video,start_frame,num_frames,label,episode", *map(_csv_row, windows)]) + "\n"
    )
    digests = {name: _digest_folder(out / name) for name in names}
    body = {
        "episodes": digests,
        "recordings_digest": digest_json(digests),
        "motion_windows": dict(sorted(Counter(label for _, _, _, label, _ in windows).items())),
        "motion_windows_digest": digest_file(out / "motion_windows.csv"),
    }
    write_report(
        out / "collection.json", "collection", body, provenance=provenance("collect", config, inputs={}, seed=config.seed)
    )
    return out


def motion_windows(states: NDArray[np.floating]) -> Iterator[tuple[int, str]]:
    """First frame and label of the windows of 8 frames, every 4, in which the hand's motion in `states` [T, 7] is beyond doubt.

    forward, back (x), left, right (y), up, down (z): displaced by 6 cm or more along that axis and by less than half of it along
    the others. still: never a centimetre from where the window began. What is neither has no label.
    """
    for start in range(0, len(states) - WINDOW_FRAMES + 1, WINDOW_STRIDE):
        path = states[start : start + WINDOW_FRAMES, :3] - states[start, :3]
        if np.linalg.norm(path, axis=1).max() < _STILL:
            yield start, "still"
            continue
        axis = int(np.abs(path[-1]).argmax())
        largest = abs(path[-1, axis])
        if largest >= _MOVED and np.abs(np.delete(path[-1], axis)).max() < _ASIDE * largest:
            yield start, _AXES[axis][0 if path[-1, axis] > 0 else 1]


def _check(config: CollectConfig) -> None:
    """Refuse what cannot be recorded before anything is written."""
    if config.image_size % 2:
        raise ConfigError(f"image_size: {config.image_size} is odd; H.264 stores even sizes, take {config.image_size + 1}")
    if not any(config.motions.model_dump().values()):
        raise ConfigError("motions: every share is 0; give at least one motion a share above 0")
    if config.gestures and config.scene.num_objects < 2:
        raise ConfigError(f"scene.num_objects: {config.scene.num_objects} is too few; gestures need a thing to hold and another")
    import_mujoco()


def _claim(out: Path, config: CollectConfig) -> None:
    """Hold `out` to one config, and sweep what a stopped run left half-written."""
    saved = out / "config.yaml"
    if saved.is_file():
        difference = configs.first_difference(configs.load(saved, CollectConfig), config)
        if difference is not None:
            raise StaleArtifactError(
                f"{out}: was begun with another config ({difference}); choose another --out, or delete this folder"
            )
    elif out.exists() and (not out.is_dir() or any(out.glob("episode_*"))):
        raise ArtifactError(f"{out}: exists and was not begun by collect; choose another --out")
    for leftover in out.glob("*.partial"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    configs.save(config, saved)


def _name(index: int) -> str:
    return f"episode_{index:05d}"


def _start(out: Path, config: CollectConfig) -> Callable[[int], None]:
    """What records one episode after another in this process."""
    environment = Tabletop(image_size=config.image_size, rate=config.rate, scene=config.scene)
    return partial(_record, environment, out, config)


def _record(environment: Tabletop, out: Path, config: CollectConfig, index: int) -> None:
    """Play episode `index` and write its folder; every number in it is a function of (seed, index)."""
    if config.gestures:
        _record_gesture(environment, out, config, index)
        return
    scene_seed = int(np.random.SeedSequence([config.seed, index]).generate_state(1)[0])
    scene = environment.scene(scene_seed)
    name, motion = sample_motion(np.random.default_rng([config.seed, index]), config, scene)
    observed = [environment.reset(seed=scene_seed)]
    commanded = []
    lifted = False
    while len(observed) < config.frames_per_episode:
        observed.append(environment.step(motion(environment.situation())))
        commanded.append(environment.commanded)
        lifted = lifted or bool((environment.object_positions()[:, 2] > _LIFTED).any())
    instruction, success = "", True
    if name == "grasp":
        target = graspable(scene)
        instruction, success = f"pick up the {target.colour} {target.shape}", lifted
    elif name == "push":
        target = scene.objects[pushable(scene) or 0]
        instruction = f"push the {target.colour} {target.shape}"
    write_episode(
        out / _name(index),
        {"exterior_1": np.stack([observation.frame for observation in observed])},
        states=np.stack([observation.state for observation in observed]),
        actions=np.stack([*commanded, observed[-1].state]),
        rate=config.rate,
        robot=ROBOT,
        instruction=instruction,
        write_video=write_video,
        extra={"success": success, "motion": name, "scene_seed": scene_seed},
    )


def _record_gesture(environment: Tabletop, out: Path, config: CollectConfig, index: int) -> None:
    played = play_gesture(environment, seed=config.seed, index=index, max_translation=config.max_translation)
    write_episode(
        out / _name(index),
        {"exterior_1": np.stack([observation.frame for observation in played.observed])},
        states=np.stack([observation.state for observation in played.observed]),
        actions=np.stack([*played.commanded, played.observed[-1].state]),
        rate=config.rate,
        robot=ROBOT,
        instruction=played.instruction,
        write_video=write_video,
        extra={
            "success": played.held,
            "motion": "gesture",
            "gesture": {"label": played.label, "start": played.start} if played.held else None,
            "scene_seed": played.scene_seed,
        },
    )


def _windows_of(out: Path, name: str) -> list[tuple[str, int, int, str, str]]:
    episode = read_episode(out / name)
    video = episode.videos["exterior_1"].relative_to(out).as_posix()
    if (gesture := episode.metadata.get("gesture", False)) is not False:
        # One that failed to hold its thing is no example of anything.
        return [] if gesture is None else [(video, gesture["start"], GESTURE_FRAMES, gesture["label"], name)]
    return [(video, start, WINDOW_FRAMES, label, name) for start, label in motion_windows(episode.states)]


def _csv_row(window: tuple[str, int, int, str, str]) -> str:
    return ",".join(map(str, window))


def _digest_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of an episode's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_bytes(*(f"{path.relative_to(folder).as_posix()} {digest_file(path)}\n".encode() for path in files))
