"""Latent store: frozen latents of whole trajectories in HDF5, with the states and actions that go with them.

`layout` says where everything lies, `writing` fills it in place, `sharding` puts files of several writers together, `reading`
reads one file or many.
"""

from vjepa2cli.artifacts.latent_store.binding import require_same
from vjepa2cli.artifacts.latent_store.header import Episode, LatentHeader
from vjepa2cli.artifacts.latent_store.layout import Layout
from vjepa2cli.artifacts.latent_store.reading import LatentStore, read_header
from vjepa2cli.artifacts.latent_store.sharding import Shard, find_shards, member_path, remove, write_index
from vjepa2cli.artifacts.latent_store.writing import LatentWriter, create, open_writer

__all__ = [
    "Episode",
    "LatentHeader",
    "LatentStore",
    "LatentWriter",
    "Layout",
    "Shard",
    "create",
    "find_shards",
    "member_path",
    "open_writer",
    "read_header",
    "remove",
    "require_same",
    "write_index",
]
