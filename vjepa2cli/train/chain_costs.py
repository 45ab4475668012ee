"""What the steps of the chain will cost on a machine whose rates are known: time, GPU-hours and disk, from their configs alone.

Networks are counted as in `costs`; what is small beside them is left out, and evaluations during a training are as well.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vjepa2cli.settings import (
    CollectConfig,
    EvaluateConfig,
    IngestConfig,
    PosttrainConfig,
    PrecomputeConfig,
    PretrainConfig,
    ProbeConfig,
    StepConfig,
    ValidateConfig,
)
from vjepa2cli.train.ac_costs import AcCosts, LatentShape
from vjepa2cli.train.costs import compute_costs
from vjepa2cli.train.networks import encoder_spec

ON_GPU = ("pretrain", "precompute", "posttrain", "probe", "validate", "evaluate")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_HOUR = 3600.0


@dataclass(frozen=True)
class Work:
    """What one job of a step does; `width` is that of its largest network. `jobs` of them are alike."""

    step: str
    jobs: int = 1
    training_flops: float = 0.0
    inference_flops: float = 0.0
    width: int = 1
    decoded_pixels: float = 0.0
    simulated_frames: float = 0.0
    disk_bytes: float = 0.0
    remarks: tuple[str, ...] = field(default=())


def chain_work(configs: Mapping[str, StepConfig], *, encoders: Sequence[str], frames: int | None) -> list[Work]:
    """The work of every step that has a config, in the order of the chain.

    `frames` are those of all recordings, where `collect` does not say it.
    """
    return [work for work in (_of(step, configs, encoders, _frames(configs, frames)) for step in configs) if work is not None]


def _frames(configs: Mapping[str, StepConfig], frames: int | None) -> int | None:
    collect = configs.get("collect")
    return collect.episodes * collect.frames_per_episode if frames is None and isinstance(collect, CollectConfig) else frames


def _of(step: str, configs: Mapping[str, StepConfig], encoders: Sequence[str], frames: int | None) -> Work | None:
    config, pretrain = configs[step], configs.get("pretrain")
    unknown = () if frames is not None else ("the number of frames is not known: give --frames",)
    count = frames or 0
    if isinstance(config, CollectConfig):
        return Work(step, simulated_frames=count, disk_bytes=count * config.image_size**2 * 0.15)
    if isinstance(config, IngestConfig):
        collect = configs.get("collect")
        side = collect.image_size if isinstance(collect, CollectConfig) else 2 * config.short_side
        pixels = count * side**2
        return Work(step, decoded_pixels=pixels, disk_bytes=min(1, config.short_side / side) ** 2 * pixels * 3, remarks=unknown)
    if not isinstance(pretrain, PretrainConfig):
        return None
    network = _Networks(pretrain, configs)
    if isinstance(config, PretrainConfig):
        costs = compute_costs(config)
        state = 12.0 * (costs.encoder_parameters + costs.predictor_parameters) + 4.0 * costs.encoder_parameters
        kept = state * (config.keep_checkpoints + 1)
        return Work(step, training_flops=config.steps * costs.flops_per_step, width=costs.encoder.dim, disk_bytes=kept)
    if isinstance(config, PrecomputeConfig):
        size = count * network.patches(config.crop) * network.encoder.dim * _BYTES[config.dtype]
        flops = count * network.encoder_flops(network.patches(config.crop))
        return Work(step, len(encoders), 0.0, flops, network.encoder.dim, disk_bytes=size, remarks=unknown)
    return network.judged(step, config, encoders)


class _Networks:
    """The encoder and the action-conditioned predictor, and what a forward pass of theirs costs."""

    def __init__(self, pretrain: PretrainConfig, configs: Mapping[str, StepConfig]) -> None:
        self.encoder = compute_costs(pretrain).encoder
        self._patch = encoder_spec(pretrain).patch_size
        posttrain, precompute = configs.get("posttrain"), configs.get("precompute")
        crop = precompute.crop if isinstance(precompute, PrecomputeConfig) else pretrain.clip.crop
        side = crop // self._patch
        config = posttrain if isinstance(posttrain, PosttrainConfig) else PosttrainConfig()
        self.predictor = AcCosts(config, LatentShape(side, side, self.encoder.dim))

    def patches(self, crop: int) -> int:
        """Tokens of one frame."""
        return (crop // self._patch) ** 2

    def encoder_flops(self, tokens: float) -> float:
        """Forward, of a clip of so many tokens."""
        return self.encoder.linear_flops(tokens) + self.encoder.attention_flops(tokens)

    def predictor_flops(self, frames: float) -> float:
        """Forward, of a window of so many frames."""
        tokens, blocks = frames * self.predictor.frame_tokens, self.predictor.blocks
        return blocks.linear_flops(tokens) + blocks.attention_flops(tokens)

    def planned_flops(self, samples: int, iterations: int, horizon: int) -> float:
        """Of one search: every sample is rolled out over the horizon."""
        return samples * iterations * horizon * self.predictor_flops(1)

    def judged(self, step: str, config: StepConfig, encoders: Sequence[str]) -> Work | None:
        jobs = len(encoders)
        if isinstance(config, PosttrainConfig):
            flops = config.steps * self.predictor.flops_per_step
            size = 12.0 * self.predictor.parameters * (config.keep_checkpoints + 1)
            return Work(step, jobs, flops, width=self.predictor.blocks.dim, disk_bytes=size)
        if isinstance(config, ProbeConfig):
            tokens = max(1, config.num_frames // 2) * self.patches(config.crop)
            clips = config.steps * config.batch_size * (1 + len([name for name in config.baselines if name == "untrained"]))
            remark = "at most: features of a clip that comes again are kept"
            return Work(step, 1, 0.0, clips * self.encoder_flops(tokens), self.encoder.dim, remarks=(remark,))
        if isinstance(config, ValidateConfig):
            rolled = 2 * config.max_windows * self.predictor_flops(config.horizon)
            searched = config.num_inversions * self.planned_flops(config.cem.samples, config.cem.iterations, config.cem.horizon)
            return Work(step, jobs, 0.0, rolled + searched, self.predictor.blocks.dim)
        if isinstance(config, EvaluateConfig):
            actions = config.episodes * len(config.shifts) * sum(_actions(config, task) for task in config.tasks)
            search = self.planned_flops(config.cem.samples, config.cem.iterations, config.cem.horizon)
            seen = self.encoder_flops(self.predictor.shape.tokens)
            flops = actions * (search + seen)
            return Work(step, jobs, 0.0, flops, self.predictor.blocks.dim, simulated_frames=3 * actions)
        return None


def _actions(config: EvaluateConfig, task: str) -> int:
    """Actions that an episode of a task may take; a task of somebody's own environment is taken for a reach."""
    allowed = getattr(config, task, config.reach).actions
    return sum(allowed) if isinstance(allowed, tuple) else int(allowed)


def price(work: Sequence[Work], rates: Mapping[str, Any], *, gpus: Mapping[str, int]) -> list[dict[str, Any]]:
    """Seconds of a job, GPU-hours and bytes of every step at these rates; `gpus` of a step share its operations evenly."""
    return [dict(_price(item, rates, gpus.get(item.step, 1))) for item in work]


def _price(work: Work, rates: Mapping[str, Any], gpus: int) -> Iterator[tuple[str, Any]]:
    seconds = float(rates["start_seconds"])
    seconds += work.training_flops / _rate(rates["training_flops"], work.width) / gpus
    seconds += work.inference_flops / _rate(rates["inference_flops"], work.width) / gpus
    seconds += work.decoded_pixels / float(rates["decoded_pixels"])
    seconds += work.disk_bytes / float(rates["written_bytes"])
    remarks = list(work.remarks)
    if work.simulated_frames and rates.get("simulated_frames"):
        seconds += work.simulated_frames / float(rates["simulated_frames"])
    elif work.simulated_frames:
        remarks.append("the simulator was not timed")
    yield "step", work.step
    yield "jobs", work.jobs
    yield "flops", work.jobs * (work.training_flops + work.inference_flops)
    yield "seconds_per_job", seconds
    yield "gpu_hours", work.jobs * gpus * seconds / _HOUR if work.step in ON_GPU else 0.0
    yield "disk_bytes", work.jobs * work.disk_bytes
    yield "remarks", remarks


def _rate(rates: Mapping[str, float], width: int) -> float:
    """Of the width nearest to this one, in proportion."""
    nearest = min(rates, key=lambda name: abs(math.log(int(name) / width)))
    return float(rates[nearest])
