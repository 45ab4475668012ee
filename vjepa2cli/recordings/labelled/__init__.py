"""Sets of labelled videos and images, read in the formats that they are published in, which are told apart by their content.

Something-Something v2 and Diving48 (a JSON list a split), Jester (`id;class` lines), Kinetics (CSV of YouTube ids), COIN (one
JSON), ImageNet (a folder a class), the released lists of `path label`, and tables of our own.
"""

from vjepa2cli.recordings.labelled.places import Places
from vjepa2cli.recordings.labelled.published import LabelledClip, LabelledSet, read_labelled

__all__ = ["LabelledClip", "LabelledSet", "Places", "read_labelled"]
