"""The video store: decoded frames beside their index, timestamp and source, in sharded Zarr v3. The only door to zarr.

Layout: `videos/<key>/` holds one entry: `frames` [F, Y, X, 3] in chunks of one frame, `timestamps`, `indices`, and for robots
`states`, `actions` and the camera's `extrinsics`. It is written under a temporary name and renamed. `sources/<key>/` records what
became of one source: its entries, or why it was refused. The root's attributes list the entries and hold `complete`, set last of
all. `checks/` holds what was then found of robot recordings.
"""

from vjepa2cli.artifacts.video_store.entry import Description, VideoEntry, Window, plain
from vjepa2cli.artifacts.video_store.entry_writing import EntryWriter
from vjepa2cli.artifacts.video_store.reading import VideoStore
from vjepa2cli.artifacts.video_store.writing import VideoStoreWriter

__all__ = ["Description", "EntryWriter", "VideoEntry", "VideoStore", "VideoStoreWriter", "Window", "plain"]
