"""A process group of one belongs to its process alone; one of several waits for none of them for ever."""

import os
import socket
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


SILENT = """
import os, sys, time
import torch
from torch import distributed
from vjepa2cli.errors import TrainingError
from vjepa2cli.train.process_group import ProcessGroup, noticing_loss
group = ProcessGroup(torch.device("cpu"))
made_by_a_library = distributed.new_group([0, 1])
group.bound_waiting()
distributed.all_reduce(torch.ones(1), group=made_by_a_library)
if group.is_leader:
    sys.stdin.read()
began = time.monotonic()
try:
    with noticing_loss():
        distributed.all_reduce(torch.ones(1), group=made_by_a_library)
except TrainingError:
    print(time.monotonic() - began)
sys.stdout.flush()
os._exit(0)
"""


def test_a_process_that_is_silent_in_a_group_of_a_library_is_waited_for_as_long_as_in_ours() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "VJEPA2_GROUP_TIMEOUT": "3"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", SILENT], env=os.environ | meeting | {"RANK": rank}, **pipes)  # type: ignore[call-overload]
        for rank in ("0", "1")
    ]
    assert 2 < float(processes[1].communicate(timeout=600)[0]) < 20
    processes[0].communicate(timeout=60)
