"""A process group of one belongs to its process alone."""

import subprocess
import sys

ALONE = """
import os, subprocess, sys
import torch
from vjepa2cli.train.process_group import ProcessGroup
group = ProcessGroup(torch.device("cpu"))
assert (group.rank, group.world_size) == (0, 1)
assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & set(os.environ)
if sys.argv[1:]:
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
"""


def test_a_process_that_a_training_starts_may_train_as_well() -> None:
    ended = subprocess.run([sys.executable, "-c", ALONE, ALONE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
