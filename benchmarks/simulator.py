"""How fast the tabletop steps and renders, beside bare MuJoCo: `python benchmarks/simulator.py [--image-size 128] [--rounds 20]`.

A frame is one action carried out (a quarter of a second of physics, inverse kinematics) and one picture taken. The limit is the
same model stepped and rendered by MuJoCo alone, as often. Each contender runs in turn in every round, ten frames at a time.
Frames a second and core are counted in CPU time, all threads of the software renderer included. Beside the median stands the best
round: other work on the machine takes caches and half of a core away and gives nothing, so the best is nearest to a quiet one.
`--processes` records with so many at once and counts wall time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vjepa2cli.collection import collect
from vjepa2cli.settings import CollectConfig, SceneConfig, TasksConfig
from vjepa2cli.simulation.offscreen import import_mujoco, open_renderer
from vjepa2cli.simulation.stage import TIMESTEP, build_model
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks import make_task

SCENES = {
    "plain": SceneConfig(),
    "varied": SceneConfig(textures="varied", gripper="small", movers=2, light_jitter=0.3, camera_jitter=0.02),
}
SLICE = 10
TASKS = ("reach", "grasp", "reach_with_object", "pick_and_place", "push")


def main() -> None:
    """Print a table of frames a second and core, the time of laying out episodes, and what several processes do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, nargs="+", default=[96, 128, 256])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    print("| scene | pixels | ours, frames a second and core: median, best | bare MuJoCo | ours / bare |")
    print("| --- | --- | --- | --- | --- |")
    for name, scene in SCENES.items():
        for size in asked.image_size:
            (ours, best), (bare, best_bare) = compare(scene, size, rounds=asked.rounds)
            print(f"| {name} | {size} | {ours:.0f}, {best:.0f} | {bare:.0f}, {best_bare:.0f} | {ours / bare:.2f} |", flush=True)
    print("\n| task | CPU seconds to lay out an episode and take its goals |\n| --- | --- |")
    tabletop = Tabletop(image_size=128)
    for task in TASKS:
        made = make_task(task, tabletop, TasksConfig(), SceneConfig())
        print(
            f"| {task} | {statistics.median(timed(lambda seed=seed, made=made: made.prepare(seed)) for seed in range(8)):.3f} |"
        )
    tabletop.close()
    print("\n| processes | recorded frames a wall second, encoded and written |\n| --- | --- |")
    for processes in asked.processes:
        print(f"| {processes} | {recorded(processes):.0f} |", flush=True)


def compare(scene: SceneConfig, size: int, *, rounds: int) -> list[tuple[float, float]]:
    """Median and best frames a second and core of the tabletop and of bare MuJoCo on its model."""
    tabletop = Tabletop(image_size=size, scene=scene)
    tabletop.reset(seed=0)
    rng = np.random.default_rng(0)

    def ours() -> None:
        for _ in range(SLICE):
            tabletop.step(rng.uniform(-0.05, 0.05, 7))

    mujoco = import_mujoco()
    model = build_model(mujoco, scene, image_size=size)
    data, renderer = mujoco.MjData(model), open_renderer(model, image_size=size)

    def bare() -> None:
        for _ in range(SLICE):
            mujoco.mj_step(model, data, round(0.25 / TIMESTEP))
            renderer.update_scene(data, "exterior")
            renderer.render()

    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(rounds + 1):
        for name, work in (("ours", ours), ("bare", bare)):
            taken = timed(work)
            if turn:  # the first one warms up
                seconds[name].append(taken)
    tabletop.close()
    renderer.close()
    return [(SLICE / statistics.median(times), SLICE / min(times)) for times in seconds.values()]


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def recorded(processes: int) -> float:
    """Frames a second of `collect`, starting the processes included."""
    config = CollectConfig(episodes=20, frames_per_episode=32, image_size=128)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        collect(Path(folder) / "raw", config=config, workers=processes)
        return config.episodes * config.frames_per_episode / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
