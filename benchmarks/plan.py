"""How fast and how well do we plan, beside a plain planner: `speed`, `solvers`, `success` and `deadline`.

    python benchmarks/plan.py speed [--size tabletop|released] [--samples 400] [--iterations 10] [--horizons 1 4] [--device cuda]
    python benchmarks/plan.py solvers --model results/posttrain/trained --latents results/latents/trained.h5 [--horizon 2]
    python benchmarks/plan.py success --model results/posttrain/trained [--task reach] [--episodes 50] [--solvers NAME...]
    python benchmarks/plan.py deadline [--budget-ms 200] [--calls 100] [--load 2]

`speed` compares with the released notebook's way, made anew from its description: float32, all candidates in one batch, every
step of a rollout reads all frames again. Same random weights, samples and iterations. In every round each contender runs once;
figures are medians. On CUDA the rate of one large matrix product in bfloat16 stands for the machine.
`solvers` plans between recorded frames and prints the final energy, by an exact float32 rollout, against milliseconds.
`success` plays a task in the tabletop with every solver and number of iterations, and prints successes against milliseconds.
`deadline` counts the calls that ended in time while other processes keep the cores busy.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.config import load as load_config
from vjepa2cli.data.poses import pose_compose
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.inference import native_precision
from vjepa2cli.models.world_model import WorldModel, normalise_latents
from vjepa2cli.planning.cem import CemResult
from vjepa2cli.planning.clock import Deadline
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.evaluation import evaluate
from vjepa2cli.planning.model_card import open_predictor
from vjepa2cli.settings import CemConfig, EvaluateConfig

SIZES = {
    "tabletop": (AcPredictorSpec(192, 192, 4, 3, absolute_positions=True, condition_patches=True, residual=True), 36),
    "released": (AcPredictorSpec(1408, 1024, 24, 16), 256),
}
"""The shipped tabletop predictor, and V-JEPA 2-AC at ViT-g size; with the patches of a frame."""
PRODUCT = 8192
ITERATIONS = (1, 2, 4, 8)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(required=True)
    speed_way = ways.add_parser("speed")
    speed_way.add_argument("--size", choices=sorted(SIZES), default="tabletop")
    speed_way.add_argument("--samples", type=int, default=400)
    speed_way.add_argument("--iterations", type=int, default=10)
    speed_way.add_argument("--horizons", type=int, nargs="+", default=[1, 4])
    speed_way.add_argument("--rounds", type=int, default=3)
    speed_way.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    speed_way.add_argument("--without-plain", action="store_true", help="where the plain planner takes too long or too much")
    speed_way.set_defaults(run=speed)
    solvers_way = ways.add_parser("solvers")
    solvers_way.add_argument("--model", required=True)
    solvers_way.add_argument("--latents", type=Path, required=True)
    solvers_way.add_argument("--horizon", type=int, default=2)
    solvers_way.add_argument("--samples", type=int, default=64)
    solvers_way.add_argument("--windows", type=int, default=16)
    solvers_way.set_defaults(run=solvers)
    success_way = ways.add_parser("success")
    success_way.add_argument("--model", required=True)
    success_way.add_argument("--task", default="reach")
    success_way.add_argument("--episodes", type=int, default=50)
    success_way.add_argument("--samples", type=int, default=64)
    success_way.add_argument("--horizon", type=int, default=1)
    success_way.add_argument("--iterations", type=int, nargs="+", default=ITERATIONS)
    success_way.add_argument("--config", default="tiny-evaluate", help="a preset or file of evaluate; the scene is taken from it")
    success_way.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS), metavar="NAME")
    success_way.set_defaults(run=success)
    deadline_way = ways.add_parser("deadline")
    deadline_way.add_argument("--budget-ms", type=float, default=200)
    deadline_way.add_argument("--calls", type=int, default=100)
    deadline_way.add_argument("--load", type=int, default=2, help="busy processes beside ours")
    deadline_way.set_defaults(run=deadline)
    asked = parser.parse_args()
    asked.run(asked)


# --- speed -----------------------------------------------------------------------------------------------------------


def speed(asked: argparse.Namespace) -> None:
    """A table a horizon: seconds an action, and the energies of the two ways beside each other."""
    spec, patches = SIZES[asked.size]
    world = random_world(spec, asked.device)
    print(
        f"{asked.size}: {asked.samples} samples, {asked.iterations} iterations, {asked.device}, torch {torch.__version__}, ",
        end="",
    )
    print(f"{torch.get_num_threads()} threads, native precision {native_precision(asked.device)}")
    rate = product_rate() if asked.device == "cuda" else None
    for horizon in asked.horizons:
        compare(world, patches, horizon, asked, rate=rate)


def compare(world: WorldModel, patches: int, horizon: int, asked: argparse.Namespace, *, rate: float | None) -> None:
    """One horizon: time every contender, and hold the energies of ours to those of the plain rollout."""
    draws = torch.randn(3, patches, world.ac.spec.latent_dim, generator=generator_for(1)).to(asked.device)
    latent, goal = normalise_latents(draws[0]), normalise_latents(draws[1])
    state = 0.3 * torch.rand(7, generator=generator_for(2)).to(asked.device)
    configs = {
        f"ours, {precision}": CemConfig(samples=asked.samples, iterations=asked.iterations, horizon=horizon, precision=precision)
        for precision in ("fp32", "bf16")
    }
    controllers = {name: Controller(world, config) for name, config in configs.items()}
    works = {name: planning(controller, latent, state, goal) for name, controller in controllers.items()}
    if not asked.without_plain:
        works = {"plain": planning(Plain(world, configs["ours, fp32"]), latent, state, goal)} | works
    seconds, memory = measured(works, rounds=asked.rounds, cuda=asked.device == "cuda")
    actions = 0.05 * torch.randn(64, horizon, 7, generator=generator_for(3)).to(asked.device)
    exact = plain_energy(world, latent, state, goal, actions)
    print(f"\nhorizon {horizon}\n| planner | s an action | times plain | energies off by at most | peak GiB |")
    print("| --- | --- | --- | --- | --- |")
    for name, taken in seconds.items():
        off = controllers[name].energy(latent, state, goal, actions) - exact if name in controllers else torch.zeros(1)
        times = f"{seconds['plain'] / taken:.2f}" if "plain" in seconds else "-"
        peak = f"{memory[name] / 2**30:.2f}" if memory else "-"
        print(f"| {name} | {taken:.3f} | {times} | {float(off.abs().max()):.1e} | {peak} |")
    print(f"energies of 64 candidates spread by {float(exact.std()):.1e} around {float(exact.mean()):.3f}")
    if rate is not None:
        work = flops(world.ac.spec, patches, horizon) * asked.samples * asked.iterations
        share = work / seconds["ours, bf16"] / rate
        print(f"one product: {rate / 1e12:.0f} TFLOP/s in bfloat16; ours works at {share:.0%} of it (aim: under 3 s an action)")


class Plain(Controller):
    """Our search with the released notebook's rollouts; poses are composed in one go, which only makes it faster."""

    def energy(self, latent: Tensor, state: Tensor, goal: Tensor, actions: Tensor, **_: object) -> Tensor:
        """All candidates at once."""
        return plain_energy(self.world, latent, state, goal, actions)

    def __init__(self, world: WorldModel, config: CemConfig) -> None:
        super().__init__(world, config)
        self.world = world


@torch.inference_mode()
def plain_energy(world: WorldModel, latent: Tensor, state: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
    """Every step feeds all frames so far anew, in float32."""
    rows = len(actions)
    latents, states = latent.expand(rows, 1, *latent.shape), state.expand(rows, 1, -1)
    for step in range(1, actions.shape[1] + 1):
        predicted = world.ac(latents, actions[:, :step], states)[:, -1:]
        latents = torch.cat((latents, normalise_latents(predicted)), dim=1)
        states = torch.cat((states, pose_compose(states[:, -1], actions[:, step - 1]).unsqueeze(1)), dim=1)
    return (latents[:, -1] - goal).abs().mean((1, 2))


def random_world(spec: AcPredictorSpec, device: str) -> WorldModel:
    """A world model without an encoder, whose random weights let actions show in its predictions."""
    ac = AcPredictor(spec, generator=generator_for(0)).eval().requires_grad_(False)
    for part in (ac.action_encoder, ac.state_encoder):
        part.weight.mul_(100)
    return WorldModel(None, ac.to(device), compose=pose_compose)


def planning(controller: Controller, latent: Tensor, state: Tensor, goal: Tensor) -> Callable[[], CemResult]:
    """One action, as a function of nothing."""
    return lambda: controller.plan_latent(latent, state, goal, generator=generator_for(0))


def measured(works: dict[str, Callable[[], CemResult]], *, rounds: int, cuda: bool) -> tuple[dict[str, float], dict[str, int]]:
    """The median seconds of each work, all of them in turn in every round, and on CUDA the peak bytes of each."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name, work in works.items():
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}, memory


def flops(spec: AcPredictorSpec, patches: int, horizon: int) -> float:
    """Operations of one candidate's rollout with cached keys: two for each weight and token, and the products of attention."""
    tokens = patches + 2
    weights = spec.depth * spec.embed_dim**2 * (4 + 2 * spec.mlp_ratio) + 2 * spec.embed_dim * spec.latent_dim
    attention = sum(4 * tokens * (frame + 1) * tokens * spec.embed_dim * spec.depth for frame in range(horizon))
    return horizon * 2 * tokens * weights + attention


def product_rate() -> float:
    """Operations a second of one large matrix product in bfloat16."""
    a, b = (torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    return 20 * PRODUCT**3 / (time.perf_counter() - start)


# --- solvers ---------------------------------------------------------------------------------------------------------

SOLVERS: dict[str, dict[str, object]] = {
    "released: cem, the mean": {},
    "the best sample": {"returns": "best"},
    "mean among the samples": {"mean_among_samples": True},
    "mean among them, the best": {"mean_among_samples": True, "returns": "best"},
    "floor .05 under the spread": {"std_floor": 0.05},
    "no smoothing": {"mean_smoothing": 0.0, "std_smoothing": 0.0},
    "coloured noise 1": {"noise_colour": 1.0},
    "ends at agreement .1": {"agreement": 0.1},
    "mppi .05": {"solver": "mppi", "temperature": 0.05},
    "mppi .1": {"solver": "mppi", "temperature": 0.1},
    "mppi .2": {"solver": "mppi", "temperature": 0.2},
}


def solvers(asked: argparse.Namespace) -> None:
    """The curve of final energy against milliseconds, for every solver."""
    world, card = open_predictor(asked.model)
    windows = recorded(LatentStore.open(asked.latents), asked.horizon, asked.windows)
    base = CemConfig(
        samples=asked.samples,
        elites=max(2, asked.samples // 10),
        horizon=asked.horizon,
        plan_gripper=False,
        precision=native_precision("cpu"),
    )
    print(
        f"{len(windows)} windows, horizon {asked.horizon}, {asked.samples} samples, {torch.get_num_threads()} threads; ", end=""
    )
    true = [float(plain_energy(world, latent, state, goal, actions[None])) for latent, state, goal, actions in windows]
    still = [float(plain_energy(world, latent, state, goal, 0 * actions[None])) for latent, state, goal, actions in windows]
    print(f"energy of the recorded actions {np.mean(true):.4f}, of standing still {np.mean(still):.4f}\n")
    print("| solver | " + " | ".join(f"{count} iterations: energy, ms" for count in ITERATIONS) + " |")
    print("| --- |" + " --- |" * len(ITERATIONS))
    for name, change in SOLVERS.items():
        cells = []
        for count in ITERATIONS:
            config = CemConfig.model_validate(base.model_dump() | {"iterations": count} | change)
            cells.append(mean_energy(world, Controller(world, config, space=card.space), windows))
        print(f"| {name} | " + " | ".join(f"{energy:.4f}, {1000 * seconds:.0f}" for energy, seconds in cells) + " |", flush=True)


Window = tuple[Tensor, Tensor, Tensor, Tensor]


def recorded(store: LatentStore, horizon: int, count: int) -> list[Window]:
    """Latent and state of a held-out moment, the latent `horizon` steps later, and the actions between them."""
    found = []
    for number, index in enumerate((store.of_split("val") or store.of_split("all")) * count):
        start = (number * 7) % (store.lengths[index] - horizon)
        tokens = torch.from_numpy(store.tokens(index, start, start + horizon + 1))
        actions = torch.from_numpy(store.actions(index)[start : start + horizon])
        found.append((tokens[0], torch.from_numpy(store.states(index)[start]), tokens[-1], actions))
        if len(found) == count:
            break
    return found


def mean_energy(world: WorldModel, controller: Controller, windows: Sequence[Window]) -> tuple[float, float]:
    """The mean exact energy of the plans, and the median seconds of one."""
    energies, seconds = [], []
    for number, (latent, state, goal, _) in enumerate(windows):
        start = time.perf_counter()
        found = controller.plan_latent(latent, state, goal, generator=generator_for(number))
        seconds.append(time.perf_counter() - start)
        energies.append(float(plain_energy(world, latent, state, goal, found.actions[None])))
    return statistics.fmean(energies), statistics.median(seconds)


# --- success ---------------------------------------------------------------------------------------------------------


def success(asked: argparse.Namespace) -> None:
    """The curve of success against milliseconds an action, for every solver, on the same episodes."""
    base = load_config(asked.config, EvaluateConfig)
    task = getattr(base, asked.task).model_copy(update={"episodes": asked.episodes})
    base = base.model_copy(update={"tasks": (asked.task,), "shifts": ("none",), "num_videos": 0, asked.task: task})
    print(f"{asked.task}, {asked.episodes} episodes, horizon {asked.horizon}, {asked.samples} samples, ", end="")
    print(f"{torch.get_num_threads()} threads; successes (95 % interval), median ms an action\n")
    print("| solver | " + " | ".join(f"{count} iterations" for count in asked.iterations) + " |")
    print("| --- |" + " --- |" * len(asked.iterations))
    for name in asked.solvers:
        cells, change = [], SOLVERS[name]
        for count in asked.iterations:
            size = {
                "samples": asked.samples,
                "elites": max(2, asked.samples // 10),
                "horizon": asked.horizon,
                "iterations": count,
            }
            cem = CemConfig.model_validate(base.cem.model_dump() | size | change)
            with tempfile.TemporaryDirectory() as folder:
                config = base.model_copy(update={"cem": cem})
                report = read_report(evaluate(asked.model, Path(folder) / "report.json", config=config))
            share = report["results"][0]["policies"]["planner"]["success"]
            low, high = share["interval"]
            milliseconds = 1000 * report["timing"]["median_seconds_per_action"]
            cells.append(f"{share['successes']} ({low:.0%} to {high:.0%}), {milliseconds:.0f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


# --- deadline --------------------------------------------------------------------------------------------------------


def deadline(asked: argparse.Namespace) -> None:
    """How many calls ended in time, and by how much, with busy processes beside us."""
    spec, patches = SIZES["tabletop"]
    world = random_world(spec, "cpu")
    latent, goal = torch.randn(2, patches, spec.latent_dim, generator=generator_for(1))
    state = torch.zeros(7)
    controller = Controller(world, CemConfig(iterations=10_000, precision=native_precision("cpu")))
    busy = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True) for _ in range(asked.load)]
    for process in busy:
        process.start()
    controller.warm_up(latent, state)
    late, scored = [], []
    for call in range(asked.calls):
        limit = Deadline(asked.budget_ms / 1000)
        scored.append(controller.plan_latent(latent, state, goal, generator=generator_for(call), deadline=limit).scored)
        late.append(-1000 * limit.left)
    for process in busy:
        process.kill()
    held = sum(milliseconds <= 0 for milliseconds in late)
    print(f"{held} of {asked.calls} calls ended within {asked.budget_ms:g} ms beside {asked.load} busy processes on ", end="")
    print(
        f"{multiprocessing.cpu_count()} cores; the latest {max(late):+.1f} ms, the median {statistics.median(late):+.1f} ms; ",
        end="",
    )
    print(f"{statistics.median(scored):.0f} candidates scored in the median call")


def burn() -> None:
    """Keep one core busy."""
    x = torch.randn(256, 256)
    while True:
        x = (x @ x).clamp(-1, 1)


if __name__ == "__main__":
    main()
