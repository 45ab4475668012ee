"""Sets of labelled videos and images, read in the formats that they are published in, which are told apart by their content.

Something-Something v2 and Diving48 (a JSON list a split), Jester (`id;class` lines), Kinetics (CSV of YouTube ids), COIN (one
JSON), ImageNet (a folder a class), Epic-Kitchens (a CSV of actions), the released lists of `path label`, and tables of our own.
"""

from vjepa2cli.recordings.labelled.epic import Action, ActionSet, read_actions
from vjepa2cli.recordings.labelled.places import Places
from vjepa2cli.recordings.labelled.published import LabelledClip, LabelledSet, class_order, read_labelled

__all__ = ["Action", "ActionSet", "LabelledClip", "LabelledSet", "Places", "class_order", "read_actions", "read_labelled"]
