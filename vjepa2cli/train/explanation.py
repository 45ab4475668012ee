"""What a config of a training means: what it reads, computes and holds, and where it departs from what was released."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vjepa2cli import config as configs
from vjepa2cli.errors import ConfigError
from vjepa2cli.settings import PosttrainConfig, PretrainConfig, StepConfig
from vjepa2cli.train.ac_costs import AcCosts, LatentShape
from vjepa2cli.train.costs import compute_costs

_SOURCES = ("yaml", "paper", "code", "checkpoint")
_HOUR = 3600.0
_TINY_LATENTS = (6, 6, 192)
"""Rows, columns and width of what the tiny presets make."""


@dataclass(frozen=True)
class Machine:
    """What a cost is stated for: TFLOP/s that a GPU really does, how many there are, and the size of stored frames."""

    tflops: float
    gpus: int
    frame_height: int
    frame_width: int


def explain(
    source: str,
    *,
    overrides: Sequence[str],
    tflops: float,
    gpus: int | None,
    stored: Sequence[int] | None = None,
    latents: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The costs of a preset or file as plain JSON types, and its departures from the released recipe that it builds on.

    `tflops` is the rate that a GPU reaches; `gpus` are those of the release where it is None. Of a pretraining, `stored` (height,
    width) of a frame is the crop at 16:9 unless given; of a post-training, `latents` (rows, columns, width) are those of the
    release, or else of the tiny encoder. Raises ConfigError for a config of another step.
    """
    config = configs.load_any(source, overrides=overrides)
    recipe = configs.recipe_of(source)
    about = configs.about(recipe) if recipe else {}
    count = gpus or int(configs.about(source).get("gpus") or about.get("gpus", 1))
    if isinstance(config, PretrainConfig):
        height, width = stored or (config.clip.crop, round(config.clip.crop * 16 / 9))
        costs = _costs(config, Machine(tflops, count, height, width))
    elif isinstance(config, PosttrainConfig):
        rows, columns, width = latents or about.get("latents", _TINY_LATENTS)
        costs = _ac_costs(AcCosts(config, LatentShape(rows, columns, width)), tflops=tflops, gpus=count)
    else:
        raise ConfigError(f"{source}: is a config for step {config.step!r}; those of pretrain and posttrain can be explained")
    return {
        "source": source,
        "recipe": recipe,
        "released": about.get("released"),
        "config_digest": configs.digest(config),
        "costs": costs,
        "departures": [_departure(item, config) for item in about.get("departures", [])] + _own_changes(recipe, config),
    }


def _costs(config: PretrainConfig, machine: Machine) -> dict[str, Any]:
    costs = compute_costs(config)
    gpu_seconds = config.steps * costs.flops_per_step / (machine.tflops * 1e12)
    seconds = costs.seconds_of_video_per_step
    return {
        "encoder_parameters": costs.encoder_parameters,
        "predictor_parameters": costs.predictor_parameters,
        "updates": config.steps,
        "groups": [
            {
                "clips": group.clips,
                "frames": group.frames,
                "crop": group.crop,
                "seconds": group.seconds,
                "tokens": group.tokens,
                "kept": [round(family.kept / group.tokens, 4) for family in group.families],
                "predicted": [round(family.predicted / group.tokens, 4) for family in group.families],
            }
            for group in costs.groups
        ],
        "global_batch": sum(group.clips for group in costs.groups),
        "tokens_per_step": costs.tokens_per_step,
        "context_tokens_per_step": round(costs.context_tokens_per_step),
        "predictor_tokens_per_step": round(costs.predictor_tokens_per_step),
        "seconds_of_video_per_step": seconds,
        "hours_of_video": None if seconds is None else seconds * config.steps / _HOUR,
        "stored_frame": [machine.frame_height, machine.frame_width],
        "bytes_read_per_step": costs.bytes_read_per_step(machine.frame_height, machine.frame_width),
        "flops_per_step": costs.flops_per_step,
        "flops": costs.flops_per_step * config.steps,
        "tflops": machine.tflops,
        "gpus": machine.gpus,
        "gpu_hours": gpu_seconds / _HOUR,
        "days": gpu_seconds / machine.gpus / 24 / _HOUR,
        "state_bytes_per_gpu": costs.state_bytes(machine.gpus),
        "activation_bytes_per_gpu": costs.activation_bytes(machine.gpus),
    }


def _ac_costs(costs: AcCosts, *, tflops: float, gpus: int) -> dict[str, Any]:
    config, shape = costs.config, costs.shape
    gpu_seconds = config.steps * costs.flops_per_step / (tflops * 1e12)
    return {
        "latents": [shape.rows, shape.columns, shape.width],
        "parameters": costs.parameters,
        "trained_parameters": costs.trained_parameters,
        "updates": config.steps,
        "global_batch": config.batch_size,
        "frames": config.num_frames,
        "rollout_steps": config.rollout_steps,
        "rows_at_once": costs.rows_at_once(gpus),
        "tokens_per_step": costs.tokens_per_step,
        "bytes_read_per_step": costs.bytes_read_per_step,
        "flops_per_step": costs.flops_per_step,
        "flops": costs.flops_per_step * config.steps,
        "tflops": tflops,
        "gpus": gpus,
        "gpu_hours": gpu_seconds / _HOUR,
        "days": gpu_seconds / gpus / 24 / _HOUR,
        "state_bytes_per_gpu": costs.state_bytes(gpus),
        "activation_bytes_per_gpu": costs.activation_bytes(gpus),
    }


def _departure(item: dict[str, Any], config: StepConfig) -> dict[str, Any]:
    key = item.get("key")
    return {
        "what": key or item["what"],
        "ours": configs.value_of(config, key) if key else item["ours"],
        "theirs": {name: item[name] for name in _SOURCES if name in item},
        "why": item.get("why"),
    }


def _own_changes(recipe: str | None, config: StepConfig) -> list[dict[str, Any]]:
    """Where a config differs from the shipped recipe that it builds on."""
    if recipe is None:
        return []
    shipped = configs.load_any(recipe)
    changes = configs.differences(shipped, config)
    return [{"what": key, "ours": now, "theirs": {recipe: before}, "why": None} for key, before, now in changes]


def cost_rows(costs: dict[str, Any]) -> list[tuple[str, str]]:
    """The costs for people: what, and how much."""
    if "latents" in costs:
        return _ac_rows(costs)
    rows = [
        ("encoder", f"{_scaled(costs['encoder_parameters'])} parameters"),
        ("predictor", f"{_scaled(costs['predictor_parameters'])} parameters"),
        *(row for group in costs["groups"] for row in _group_rows(group)),
    ]
    hours, step = costs["hours_of_video"], costs["seconds_of_video_per_step"]
    height, width = costs["stored_frame"]
    context, predictor = (_scaled(costs[f"{name}_tokens_per_step"]) for name in ("context", "predictor"))
    return [
        *rows,
        ("global batch", str(costs["global_batch"])),
        ("tokens a step", f"{_scaled(costs['tokens_per_step'])} by the target encoder"),
        ("", f"{context} by the encoder, {predictor} by the predictor"),
        ("updates", str(costs["updates"])),
        ("video", "unknown: clips take every stored frame" if hours is None else f"{step:.0f} s a step, {hours:.0f} h in all"),
        ("read", f"{_scaled(costs['bytes_read_per_step'], 'B')} a step, from frames stored at {height} x {width} uncompressed"),
        *_effort_rows(costs),
    ]


def _ac_rows(costs: dict[str, Any]) -> list[tuple[str, str]]:
    rows, columns, width = costs["latents"]
    trained, whole = costs["trained_parameters"], costs["parameters"]
    frames, steps = costs["frames"], costs["rollout_steps"]
    return [
        ("latents", f"{rows} x {columns} tokens of {width} a step"),
        ("predictor", f"{_scaled(whole)} parameters" + (f", of which {_scaled(trained)} are trained" if trained < whole else "")),
        ("a batch", f"{costs['global_batch']} windows of {frames} steps, rollouts of {steps}"),
        ("  at once", f"{costs['rows_at_once']:g} windows a GPU"),
        ("tokens a step", _scaled(costs["tokens_per_step"])),
        ("updates", str(costs["updates"])),
        ("read", f"{_scaled(costs['bytes_read_per_step'], 'B')} a step, of latents kept as float16"),
        *_effort_rows(costs),
    ]


def _effort_rows(costs: dict[str, Any]) -> list[tuple[str, str]]:
    days = f"{costs['days']:.3g} days on {costs['gpus']} GPU{'s' if costs['gpus'] > 1 else ''}"
    return [
        ("operations", f"{_scaled(costs['flops_per_step'], 'FLOP')} a step, {_scaled(costs['flops'], 'FLOP')} in all"),
        ("time", f"{costs['gpu_hours']:.4g} GPU-hours at {costs['tflops']:g} TFLOP/s, {days}"),
        ("memory of a GPU", f"{_scaled(costs['state_bytes_per_gpu'], 'B')} weights, gradients, moments"),
        ("", f"{_scaled(costs['activation_bytes_per_gpu'], 'B')} activations of the rows that it holds at once"),
    ]


def _group_rows(group: dict[str, Any]) -> list[tuple[str, str]]:
    clips = "images" if group["frames"] == 1 else f"clips of {group['frames']} frames"
    seconds = f", {group['seconds']:g} s" if group["seconds"] else ""
    shares = ", ".join(f"{kept:.1%}/{hidden:.1%}" for kept, hidden in zip(group["kept"], group["predicted"], strict=True))
    return [
        ("a batch", f"{group['clips']} {clips} at {group['crop']} px{seconds}: {group['tokens']} tokens each"),
        ("  kept/predicted", f"{shares} of a clip, under each family of masks"),
    ]


def departure_lines(departures: Sequence[dict[str, Any]]) -> list[str]:
    """One line a departure."""
    lines = []
    for item in departures:
        theirs = "; ".join(f"{name}: {_plain(value)}" for name, value in item["theirs"].items())
        why = f" ({item['why']})" if item["why"] else ""
        lines.append(f"{item['what']}: {_plain(item['ours'])}; {theirs}{why}")
    return lines


def _plain(value: Any) -> str:
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else f"{value}"


def _scaled(number: float, unit: str = "") -> str:
    """Four digits and a prefix: 303.9 M, 17.18 GB."""
    prefixes = (("Y", 1e24), ("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1))
    prefix, size = next(pair for pair in prefixes if number >= pair[1] or pair[1] == 1)
    return f"{number / size:.4g} {prefix}{unit}".rstrip()
