"""Frame-causal latents of robot recordings: each frame is encoded alone, so no latent has seen its future."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import (
    LatentHeader,
    LatentStore,
    Layout,
    Shard,
    find_shards,
    member_path,
    open_writer,
    read_header,
    require_same,
    write_index,
)
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.views import View, draw_view
from vjepa2cli.errors import ArtifactError, StaleArtifactError
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.precomputation.pipeline import Piece, encode_pieces, pieces_of
from vjepa2cli.precomputation.trajectories import Trajectories, read_trajectories, where_free
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.ranks import local_rank
from vjepa2cli.settings import PrecomputeConfig
from vjepa2cli.tokens import TokenGrid


class Estimate(TypedDict):
    """What a precompute will take: `free_bytes` are those of the disk now; `left_*` is what is not there yet."""

    episodes: int
    steps: int
    views: int
    dtype: str
    bytes: int
    left_episodes: int
    left_bytes: int
    free_bytes: int


class Precompute:
    """What is to be made of a store at one place: `estimate` tells its size, `run` makes it or goes on with it."""

    def __init__(
        self, store: Path, out: Path, *, model: str, config: PrecomputeConfig, device: torch.device | str = "cpu"
    ) -> None:
        """Raises InputError where the store holds no trajectories, ConfigError where their rates differ and none is set."""
        self._out, self._config, self._device = out, config, _own_device(torch.device(device))
        self._videos = VideoStore.open(store)
        self._trajectories = read_trajectories(self._videos, config=config)
        self._encoder = load_encoder(model, device=self._device)
        header = _header(self._encoder, self._videos, self._trajectories, model=model, config=config)
        self._layout = Layout(header, self._trajectories.episodes, config.dtype, config.views.count)

    def estimate(self, shard: Shard | None = None) -> Estimate:
        """Episodes, steps and bytes of the whole store, and what is left of it, or of one part of it."""
        left = [(layout, index) for _, path, layout in self._parts(shard) for index in self._left(path, layout)]
        return {
            "episodes": len(self._layout.episodes),
            "steps": sum(episode.length for episode in self._layout.episodes),
            "views": self._layout.num_views,
            "dtype": self._layout.dtype,
            "bytes": self._layout.num_bytes,
            "left_episodes": len(left),
            "left_bytes": sum(layout.episode_bytes(index) for layout, index in left),
            "free_bytes": shutil.disk_usage(where_free(self._out)).free,
        }

    def run(self, shard: Shard | None = None, *, progress: Progress = SILENT) -> bool:
        """Encode what is left of the store, or of one part of it; returns whether all of it is there now.

        Raises ArtifactError where the disk has no room for it or another process is at it, StaleArtifactError where it was begun
        with another encoder, config or other recordings.
        """
        if self._out.is_file():
            require_same(self._out, read_header(self._out), self._layout.header)
            return True
        size = self.estimate(shard)
        if size["left_bytes"] > size["free_bytes"]:
            raise ArtifactError(
                f"{self._out}: the disk is full before it begins: the latents take {describe_bytes(size['left_bytes'])} and "
                f"{describe_bytes(size['free_bytes'])} are free; free some space, set dtype: int8, or lower rate or views.count"
            )
        prepare_for_inference(self._encoder, device=self._device, precision=self._config.precision)  # after its digest was taken
        total = sum(episode.length for _, _, layout in self._parts(shard) for episode in layout.episodes)
        left = sum(layout.episodes[index].length for _, path, layout in self._parts(shard) for index in self._left(path, layout))
        progress.start(f"precompute {describe_bytes(size['left_bytes'])}", total=total, done=total - left)
        for episodes, path, layout in self._parts(shard):
            if not path.is_file():
                self._fill(path, layout, episodes, progress)
        progress.finish()
        return self._join(shard)

    def _parts(self, shard: Shard | None) -> Iterator[tuple[range, Path, Layout]]:
        """The files to write: which episodes each holds, where it lies, and its layout."""
        lengths = [episode.length for episode in self._layout.episodes]
        begun = find_shards(self._out)
        if shard is not None and begun and len(begun) != shard.count:
            raise StaleArtifactError(
                f"{self._out}: was begun in {len(begun)} parts, now {shard.count}; use --replace to start over"
            )
        chosen = begun if shard is None else [shard]
        if not chosen:
            yield range(len(lengths)), self._out, self._layout
        for part in chosen:
            episodes = part.of(lengths)
            if episodes:
                layout = replace(self._layout, episodes=self._layout.episodes[episodes.start : episodes.stop])
                yield episodes, member_path(self._out, part), layout

    def _left(self, path: Path, layout: Layout) -> list[int]:
        """Episodes of a file that are not there yet."""
        if path.is_file():
            require_same(path, read_header(path), layout.header)
            return []
        try:
            store = LatentStore.open(path, growing=True)
        except ArtifactError:
            return list(range(len(layout.episodes)))
        require_same(path, store.header, layout.header)
        left = [index for index in range(len(store.lengths)) if not store.is_done(index)]
        store.close()
        return left

    def _fill(self, path: Path, layout: Layout, episodes: range, progress: Progress) -> None:
        with open_writer(path, layout) as writer:
            pieces = (piece for index in writer.left for piece in self._pieces(index, episodes[index]))
            encode_pieces(self._encoder, pieces, writer, config=self._config, device=self._device, progress=progress)

    def _pieces(self, index: int, episode: int) -> Iterator[Piece]:
        """Parts of an episode, by its number in the file and in the whole store."""
        key = self._trajectories.entries[episode].key
        return pieces_of(
            index,
            self._trajectories.rows[episode],
            batch_frames=self._config.batch_frames,
            read=partial(self._videos.frames_at, key),
            views=self._views(key, self._layout.views_of(episode)),
        )

    def _views(self, key: str, count: int) -> Sequence[View | None]:
        """The plain view and others, which follow from the recording's key."""
        ranges = self._config.views
        draws = (np.random.default_rng([ranges.seed, view, *key.encode()]) for view in range(1, count))
        return [None, *(draw_view(rng, ranges) for rng in draws)]

    def _join(self, shard: Shard | None) -> bool:
        """Make one store of the parts as soon as they are all there."""
        count = shard.count if shard is not None else len(find_shards(self._out))
        if not count:
            return True
        lengths = [episode.length for episode in self._layout.episodes]
        parts = [part for part in (Shard(index, count) for index in range(count)) if part.of(lengths)]
        members = [member_path(self._out, part) for part in parts]
        if not all(member.is_file() and self._is_ours(member) for member in members):
            return False
        write_index(self._out, members)
        return True

    def _is_ours(self, member: Path) -> bool:
        """Whether a whole part was made for the same; one that was not is still to be replaced by another job."""
        try:
            require_same(member, read_header(member), self._layout.header)
        except StaleArtifactError:
            return False
        return True


def precompute(
    store: Path,
    out: Path,
    *,
    model: str,
    config: PrecomputeConfig,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Encode every trajectory of a robot store into a latent store at `out`, which appears only when it is whole.

    A killed run goes on with the episode that it was at. With a `shard` one part of it is made; whoever makes the last one makes
    the index of all. See `Precompute` for what is raised.
    """
    Precompute(store, out, model=model, config=config, device=device).run(shard, progress=progress)
    return out


def _own_device(device: torch.device) -> torch.device:
    """Of several processes on one machine each takes a GPU of its own."""
    return torch.device("cuda", local_rank() % torch.cuda.device_count()) if str(device) == "cuda" else device


def describe_bytes(count: int) -> str:
    """A number of bytes for people: 1.25 GB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def _header(
    encoder: FrameEncoder, videos: VideoStore, trajectories: Trajectories, *, model: str, config: PrecomputeConfig
) -> LatentHeader:
    spec = encoder.spec
    grid = TokenGrid.from_pixels(
        spec.tubelet_size, config.crop, config.crop, patch_size=spec.patch_size, tubelet_size=spec.tubelet_size
    )
    digest = encoder_digest(encoder)
    return LatentHeader(
        encoder_source=model,
        encoder_digest=digest,
        layer_norm=not isinstance(encoder, PixelEncoder),
        grid=(1, grid.h, grid.w),
        embed_dim=spec.embed_dim,
        rate=trajectories.rate,
        robot=trajectories.robot,
        preprocessing={"crop": config.crop, "geometry": config.geometry},
        provenance=provenance("precompute", config, inputs={"videos": videos.digest, "encoder": digest}),
        state_space=trajectories.space.to_tree(),
    )
