"""The command that starts another one on several processes."""

import os
from typing import Annotated

import typer

from vjepa2cli.launching import launch as become
from vjepa2cli.launching import num_cores, prepare_launch


def launch(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND ...", help="Such as: -- pretrain STORE.zarr --run-dir RUN")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, of the Slurm job that this runs in.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes on each node, such as one a GPU.")] = 1,
) -> None:
    """Run a training command on several processes, on this machine or on the nodes of a Slurm job."""
    threads = context.obj or max(1, num_cores() // processes)
    become(prepare_launch(command, nodes=nodes, processes=processes, threads=threads, environment=os.environ))
