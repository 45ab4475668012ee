"""Naming the action that comes next: the context before it, and what the predictor foretells of its first instant.

Source: evals/action_anticipation_frozen of facebookresearch/vjepa2, which with its default settings lets the context end before
the *stop* of an action, and so shows much of the action itself; the anchor `start` is that of the benchmark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.data.streams import one_after_another, overlapping_clips
from vjepa2cli.data.video import open_video
from vjepa2cli.errors import InputError
from vjepa2cli.files import digest_file, digest_json
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.predictor import Predictor, inference_mask_index
from vjepa2cli.models.weights import encoder_digest, load_encoder, load_predictor, state_digest
from vjepa2cli.recordings.labelled import Action, ActionSet, read_actions
from vjepa2cli.settings import AnticipationConfig, ProbeConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.probing.contest import Contestant, Setting
from vjepa2cli.train.probing.features import Embed, Prepared, Reader, cut
from vjepa2cli.train.probing.samples import Choose, Pixels, ProbeData, Question, Sample, checked


@dataclass(frozen=True)
class ActionFootage:
    """An action in an untrimmed video. Its clips are read by `ActionReader`, in one pass over each video."""

    action: Action

    def frames(self, choose: Choose) -> Pixels:
        """Nobody asks an action for frames one by one."""
        raise AssertionError(self.action.name)


def read_action_data(tables: Sequence[Path], config: ProbeConfig, *, root: Path | None, judged_only: bool) -> ProbeData:
    """Actions as samples with three questions: verb, noun and action."""
    settings = _settings(config)
    found = read_actions(
        tables,
        root=root,
        released_ids=settings.released_ids,
        drop_missing=config.missing == "drop",
        drop_unseen=config.unseen == "drop",
    )
    questions = tuple(Question(name, classes) for name, classes in zip(("verb", "noun", "action"), found.names, strict=True))
    splits = {"train": [] if judged_only else _samples(found.train, found), "val": _samples(found.val, found)}
    digest = digest_json([digest_file(table) for table in tables])
    where = ", ".join(map(str, tables))
    hint = "give the tables of training and validation, in this order"
    data = checked(splits, questions, digest, config, where=where, hint=hint, judged_only=judged_only)
    dropped = []
    if found.unseen:
        dropped.append(f"{found.unseen} validation actions of a verb and noun that training does not show together")
    if found.missing:
        dropped.append(f"the actions of {found.missing} videos that are not there")
    return ProbeData(questions, data.train, data.selection, data.val, digest, (*dropped, *data.dropped))


def _settings(config: ProbeConfig) -> AnticipationConfig:
    assert config.anticipation is not None
    return config.anticipation


def _samples(actions: Sequence[Action], found: ActionSet) -> list[Sample]:
    return [
        Sample(
            f"{action.name} {action.video.name} {action.start}:{action.stop}",
            (found.verbs[action.verb], found.nouns[action.noun], found.actions[action.verb, action.noun]),
            str(action.video),
            ActionFootage(action),
        )
        for action in actions
    ]


def context_numbers(
    action: Action, *, rate: float, num_frames: int, settings: AnticipationConfig, seconds: float, point: float = 0.0
) -> NDArray[np.int64]:
    """Numbers of the frames of the context: `num_frames` at `settings.fps`, of a video of `rate` frames a second.

    They end `seconds` before the anchor: the action's start, or its stop less `point` of its length, rounded as the released code
    rounds. Before the video's first frame, that one repeats. Raises InputError where the video is slower than `fps`.
    """
    step = int(rate / settings.fps)
    if step < 1:
        raise InputError(
            f"{action.video}: runs at {rate:g} frames a second, and fps={settings.fps:g} are wanted; set a lower one"
        )
    ahead = int(seconds * rate)
    released = int(action.start * point + (1 - point) * action.stop - ahead)
    end = action.start - ahead if settings.anchor == "start" else released
    return np.arange(end - num_frames * step, end, step).clip(0)[:num_frames].astype(np.int64)


class ActionReader:
    """Cuts the contexts of actions out of untrimmed videos; all contexts of a video come out of one pass over it."""

    def __init__(self, samples: Sequence[Sample], config: ProbeConfig) -> None:
        self._config = config
        self._actions = [sample.footage.action for sample in samples if isinstance(sample.footage, ActionFootage)]
        assert len(self._actions) == len(samples)

    @property
    def about(self) -> dict[str, Any]:
        """See `Reader`."""
        config = self._config
        return {"frames": config.num_frames, "crop": config.crop, "seed": config.seed, "ahead": _settings(config).model_dump()}

    def read(self, rows: Sequence[int], copy: int | None, *, threads: int, ahead: int) -> Iterator[Prepared]:
        """See `Reader`."""
        of_video: dict[Path, list[int]] = {}
        for row in rows:
            of_video.setdefault(self._actions[row].video, []).append(row)
        sources = [partial(self._contexts, video, own, copy) for video, own in of_video.items()]
        return one_after_another(sources, threads=threads, ahead=ahead)

    def _contexts(self, video: Path, rows: Sequence[int], copy: int | None) -> Iterator[Prepared]:
        config, settings = self._config, _settings(self._config)
        rngs = [np.random.default_rng([config.seed, row, 0 if copy is None else copy + 1]) for row in rows]
        with open_video(video) as file:
            rate, wanted, seconds = file.info.fps, [], []
            for row, rng in zip(rows, rngs, strict=True):
                drawn = copy is not None
                seconds.append(float(rng.uniform(*settings.train_seconds)) if drawn else settings.seconds)
                point = float(rng.uniform(*settings.train_point)) if drawn and settings.anchor == "stop" else 0.0
                numbers = context_numbers(
                    self._actions[row],
                    rate=rate,
                    num_frames=config.num_frames,
                    settings=settings,
                    seconds=seconds[-1],
                    point=point,
                )
                wanted.append(numbers)
            short = None if copy is not None and not config.augment.is_none else config.crop * 256 // 224
            frames = file.numbered({number for numbers in wanted for number in numbers.tolist()}, short_side=short)
            for place, clip in overlapping_clips(frames, wanted):
                clips = cut(clip[None], config, views=1, rng=None if copy is None else rngs[place])
                yield Prepared(rows[place], clips, seconds[place])


def foretelling(encoder: Encoder, predictor: Predictor, settings: AnticipationConfig) -> Embed:
    """The context's tokens, and after them those that the predictor foretells of one time step, `seconds` after the context."""
    mask_index = inference_mask_index(predictor)

    def embed(clips: Tensor, seconds: Sequence[float]) -> Tensor:
        context = encoder(clips)
        grid, tubelet = encoder.grid(clips), encoder.spec.tubelet_size
        place = grid.h * grid.w
        steps = torch.tensor([int(ahead * settings.fps / tubelet) for ahead in seconds], device=clips.device)
        context_ids = torch.arange(grid.num_tokens, device=clips.device).expand(len(clips), -1)
        target_ids = grid.num_tokens + place * steps[:, None] + torch.arange(place, device=clips.device)
        longer = TokenGrid(grid.t + int(steps.max()) + 1, grid.h, grid.w)
        # Clips that look equally far ahead have equal ids, so that a batch of them is one call.
        foretold = predictor(context, context_ids, target_ids, grid=longer, mask_index=mask_index)
        return torch.cat([context, foretold], dim=1)

    return embed


def anticipation_contestant(name: str, model: str, setting: Setting) -> Contestant:
    """An encoder with its predictor; raises InputError where it is none of V-JEPA 2."""
    config = setting.config
    encoder = load_encoder(model, device=setting.device)
    if not isinstance(encoder, Encoder):
        raise InputError(f"{model}: anticipation needs an encoder of V-JEPA 2 and its predictor; give such a --model")
    predictor = load_predictor(model, device=setting.device)
    assert isinstance(predictor, Predictor)
    digest = digest_json([encoder_digest(encoder), state_digest(predictor)])
    precision = "fp32" if setting.precision == "fp16" else config.precision
    for network in (encoder, predictor):
        prepare_for_inference(network, device=setting.device, precision=precision)
    embed = foretelling(encoder, predictor, _settings(config))

    def reader(samples: Sequence[Sample], views: int) -> Reader:
        assert views == 1
        return ActionReader(samples, config)

    return Contestant(name, model, encoder, digest, embed, reader)
