"""One run of `encode`, over one input or many: what is there already is kept, what cannot be read is named."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.encoding import pictures as drawing
from vjepa2cli.encoding.decoding import Message, Refused, Task, Unchanged, read_here
from vjepa2cli.encoding.gallery import Gallery, Pictures
from vjepa2cli.encoding.memory import Plan, Work, look_ahead, make_plan, show_bytes
from vjepa2cli.encoding.pipeline import BatchDone, Pipeline, Written
from vjepa2cli.encoding.recipes import Recipe, make_recipe
from vjepa2cli.encoding.sources import STDIN, Source, find_sources
from vjepa2cli.encoding.targets import Suffix, Targets, choose_targets
from vjepa2cli.encoding.workers import read_ahead
from vjepa2cli.errors import ConfigError, InputError, StaleArtifactError, Vjepa2Error, WeightsError
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import EncodeConfig

_DEFAULT = EncodeConfig()
_NO_PICTURES = Pictures()
_FIRST_SECONDS = 3.0
_LONG_SECONDS = 30.0


def encode(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: str | Path | None,
    out: Path | None = None,
    suffix: Suffix | None = None,
    config: EncodeConfig = _DEFAULT,
    pictures: Pictures = _NO_PICTURES,
    device: torch.device | str = "cpu",
    workers: int | None = 0,
    max_memory: int | None = None,
    replace: bool = False,
    progress: Progress = SILENT,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Encode videos and images; returns the `files`, and what was `written`, `kept`, `drawn` and `refused`.

    Inputs are files, folders, globs and video stores. One file becomes one .npz, .safetensors, .h5 or .zarr at `out`. Several
    become a folder of files, one each, or one .h5 or .zarr with a group each; they have a report, `encoding.json`, and features
    that are there from the same content, settings and model are kept. What cannot be read is refused and passed over.
    docs/encode.md says what the files hold.

    `workers` processes decode ahead (None: as many as the machine has room for, 0: this process decodes). They are spawned, so a
    script that asks for them needs the `__main__` guard. `max_memory` bounds bytes: of the GPU where one is used, else of all
    processes. `say` is told what the run will take. Raises InputError where nothing could be encoded or a window does not fit,
    StaleArtifactError where features of the same name were made otherwise and `replace` is not set.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    sources = find_sources(given)
    single = sources[0] if len(given) == 1 and str(given[0]) != STDIN and Path(given[0]).is_file() else None
    targets = choose_targets(out, single=single, suffix=suffix)
    run = _Run(sources, targets, config, torch.device(device), model=model, replace=replace)
    gallery = Gallery(pictures, sources, crop=run.recipe.crop, single=single is not None, origin=run.origin)
    if (pictures.pca or pictures.similarity) and run.recipe.mode not in ("tokens", "window"):
        raise ConfigError(f"mode: pictures are of tokens, which {run.recipe.mode} does not keep; set mode to tokens or window")
    known = run.find_known()
    work = look_ahead(sources, run.encoder, run.recipe)
    plan = make_plan(
        work,
        run.encoder,
        run.recipe,
        device=run.device,
        num_sources=len(sources),
        suffix=targets.suffix,
        workers=workers,
        max_memory=max_memory,
    )
    left = look_ahead([source for source in sources if source.name not in known], run.encoder, run.recipe) if known else work
    _announce(left, plan, run, say)
    run.go(known, plan, left, progress=progress, say=say)
    for source in sources:
        if source.name in run.descriptions:
            gallery.show(_shown(source, run))
    gallery.close()
    return run.summary(drawn=gallery.drawn)


def _shown(source: Source, run: "_Run") -> drawing.Encoded:
    """What the pictures need to know of one input."""
    tokens = partial(run.targets.blocks, source, run.recipe.names[-1])
    times = np.concatenate(list(run.targets.blocks(source, "timestamps")))
    fps = run.recipe.fps or source.fps()
    frames = partial(source.open, fps=run.recipe.fps)
    return drawing.Encoded(source.name, times, frames, fps, source.still, run.recipe.crop, tokens)


class _Run:
    """The inputs, the model, how it is used, and what became of each input."""

    def __init__(
        self,
        sources: Sequence[Source],
        targets: Targets,
        config: EncodeConfig,
        device: torch.device,
        *,
        model: str | Path | None,
        replace: bool,
    ) -> None:
        self.sources, self.targets, self.device, self._replace = sources, targets, device, replace
        if not model:
            encoders = ", ".join(name for name, row in RELEASED.items() if row.family != "probe")
            raise WeightsError(
                "model: none given; name the run directory of a 'vjepa2 pretrain', a checkpoint file, a transformers folder, "
                f"or a released model: {encoders}"
            )
        encoder = load_encoder(str(model))
        precision = native_precision(device) if config.precision == "auto" else config.precision
        self.recipe: Recipe = make_recipe(config, encoder, precision=precision)
        described = provenance("encode", config, inputs={"model": encoder_digest(encoder)})
        where = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}
        self.origin = described | where | {"recipe": json.loads(json.dumps(asdict(self.recipe)))}
        self.encoder = prepare_for_inference(encoder, device=device, precision=precision)
        self.descriptions: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, Vjepa2Error] = {}
        self._kept: set[str] = set()
        self._timing: dict[str, float] = {}

    def find_known(self) -> dict[str, dict[str, Any]]:
        """The headers of features that are there and made as now, by the name of the input."""
        if self.targets.single:
            return {}
        found = self.targets.headers(self.sources)
        known = {name: header for name, header in found.items() if self._difference(header) is None}
        others = [name for name in found if name not in known]
        if others and not self._replace:
            raise StaleArtifactError(
                f"{self.targets.out}: features of {others[0]} were made otherwise: {self._difference(found[others[0]])}; "
                "give another --out, or --replace them"
            )
        return known

    def _difference(self, header: dict[str, Any]) -> str | None:
        """The first thing in which features were made otherwise, as `what: old -> new`."""
        for part in ("recipe", "inputs"):
            old, new = header.get(part, {}), self.origin[part]
            for key in new:
                if old.get(key) != new[key]:
                    return f"{key}: {old.get(key)} -> {new[key]}"
        return None

    def go(
        self, known: dict[str, dict[str, Any]], plan: Plan, work: Work, *, progress: Progress, say: Callable[[str], None]
    ) -> None:
        """Encode what is not known, and put together and report what came of it."""
        recipe = self.recipe
        digests = {name: header["source_digest"] for name, header in known.items()}
        tasks = [
            Task(number, source, recipe.crop, recipe.fps, digests.get(source.name), self._replace)
            for number, source in enumerate(self.sources)
        ]
        clock = _Clock()
        messages = read_ahead(tasks, plan.crew) if plan.crew.processes else read_here(tasks)
        pipeline = Pipeline(
            self.encoder,
            recipe,
            device=self.device,
            batch_size=plan.batch_size,
            create=self.targets.create,
            origin=self.origin,
        )
        progress.start("encode, clips", total=work.windows)
        with closing(messages), closing(pipeline.run(self.sources, clock.timed(messages))) as outcomes:
            for outcome in outcomes:
                match outcome:
                    case BatchDone(num_windows):
                        clock.count(num_windows, of=work.windows, say=say)
                        progress.advance(num_windows, fields={"inputs": len(self.descriptions)})
                    case Written(number, description):
                        self.descriptions[self.sources[number].name] = description
                    case Unchanged(number):
                        name = self.sources[number].name
                        self.descriptions[name] = known[name]["description"]
                        self._kept.add(name)
                    case Refused(number, error):
                        self._refused[self.sources[number].name] = error
        progress.finish()
        self._refuse_nothing_at_all()
        self.targets.finish()
        self._timing = clock.report()

    def _refuse_nothing_at_all(self) -> None:
        if self.descriptions:
            return
        first = self.sources[0]
        error = self._refused[first.name]
        if self.targets.single:
            raise error
        raise InputError(
            f"{self.targets.out}: none of {len(self.sources)} inputs could be encoded; the first, {first.name}: "
            f"{_reason(first, error)}"
        )

    def summary(self, *, drawn: list[str]) -> dict[str, Any]:
        """What became of the inputs, in their order; written down where there were several."""
        present = [source for source in self.sources if source.name in self.descriptions]
        report = {
            "encoded": [self.descriptions[source.name] for source in present],
            "refused": [
                {"source": source.name, "reason": _reason(source, self._refused[source.name])}
                for source in self.sources
                if source.name in self._refused
            ],
        }
        if not self.targets.single:
            write_report(self.targets.report, "encode", report, provenance=self.origin, timing=self._timing)
        written = [self.targets.shown(source) for source in present if source.name not in self._kept]
        kept = [self.targets.shown(source) for source in present if source.name in self._kept]
        files = [str(self.targets.out)] if self.targets.is_store else [self.targets.shown(source) for source in present]
        return report | {"files": files, "written": written, "kept": kept, "drawn": drawn, "precision": self.recipe.precision}


def _reason(source: Source, error: Vjepa2Error) -> str:
    """The reason alone: where a file lies differs from machine to machine."""
    return str(error).removeprefix(f"{source.path}: ")


def _announce(work: Work, plan: Plan, run: _Run, say: Callable[[str], None]) -> None:
    """Say what a run will take, before it begins."""
    if not work.windows:
        return
    folder = next(place for place in run.targets.out.absolute().parents if place.exists())
    count = plan.crew.processes
    processes = f"{count} decoding process{'es' * (count > 1)}" if count else "decoded in this process"
    say(
        f"encode: about {work.windows:,} clips of {work.tokens_a_window:,} tokens, {work.flops_a_window / 1e9:,.3g} GFLOP each, "
        f"{plan.batch_size} at a time on {run.origin['device']} in {run.recipe.precision}; {processes}; at most "
        f"{show_bytes(plan.peak_bytes)} of memory, about {show_bytes(work.disk_bytes)} on disk "
        f"({show_bytes(shutil.disk_usage(folder).free)} free)"
    )


class _Clock:
    """How long a run takes, how long it waited for frames, and, after its first seconds, how long all of it will take."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first_frame: float | None = None
        self._waited = 0.0
        self._counted = 0
        self._has_said = False

    def timed(self, messages: Iterator[Message]) -> Iterator[Message]:
        """The messages, timed."""
        while True:
            before = time.monotonic()
            message = next(messages, None)
            self._waited += time.monotonic() - before
            if message is None:
                return
            if self._first_frame is None:
                self._first_frame = time.monotonic()
            yield message

    def count(self, num_windows: int, *, of: int, say: Callable[[str], None]) -> None:
        """Count windows that are done."""
        self._counted += num_windows
        passed = time.monotonic() - (self._first_frame or self._began)
        seconds = passed / self._counted
        if self._has_said or passed < _FIRST_SECONDS:
            return
        self._has_said = True
        if seconds * of > _LONG_SECONDS:
            minutes, rest = divmod(round(seconds * of), 60)
            say(f"encode: {seconds:.3g} s a clip, about {minutes // 60}:{minutes % 60:02d}:{rest:02d} in all")

    def report(self) -> dict[str, float]:
        """Seconds of the whole run, those until the first frame came, and those spent waiting for it and the others."""
        return {
            "seconds": time.monotonic() - self._began,
            "seconds_to_first_frame": (self._first_frame or self._began) - self._began,
            "seconds_waiting_for_frames": self._waited,
        }
