"""The command `vjepa2`: thin commands, and the only place where an error becomes one line and an exit code.

Exit codes: 0 done, 1 something the user can mend (one line on stderr), 2 wrong usage, 75 stopped by a signal with all of its
state saved, 130 interrupted.
"""

import os
import sys
import threading
import time
from typing import Annotated

import typer

from vjepa2cli.cli import console, evaluation, features, inspection, launch, planning, probing, steps, stores, validation, weights
from vjepa2cli.errors import StoppedError, Vjepa2Error, WeightsError
from vjepa2cli.files import is_disk_full
from vjepa2cli.launching import num_cores

_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again
_INTERRUPTED = 130
_GO_ON = "interrupted; run the same command again to go on"

app = typer.Typer(
    name="vjepa2",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for step in (
    steps.collect,
    stores.ingest,
    steps.pretrain,
    features.encode,
    features.surprise,
    steps.precompute,
    steps.posttrain,
    probing.probe,
    validation.validate,
    planning.plan,
    evaluation.evaluate,
    steps.report,
):
    app.command(rich_help_panel="Steps")(step)
app.command(rich_help_panel="Utilities")(inspection.doctor)
app.command(rich_help_panel="Utilities", context_settings={"ignore_unknown_options": True})(launch.launch)
app.add_typer(inspection.config_app, name="config", rich_help_panel="Utilities")
app.add_typer(weights.weights_app, name="weights", rich_help_panel="Utilities")


def _print_version(wanted: bool) -> None:
    if wanted:
        from vjepa2cli import __version__

        console.emit({}, f"vjepa2 {__version__}", as_json=False)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, envvar="VJEPA2_THREADS", help="CPU threads of each process, else one a core; equal threads, equal bits."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, to stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", "--local-rank", hidden=True)] = 0,
) -> None:
    """Turn video into a world model that plans. Results go to stdout, progress and logs to stderr."""
    context.obj = threads
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:  # which launchers set
        for library in ("OMP", "MKL", "OPENBLAS"):
            os.environ[f"{library}_NUM_THREADS"] = str(threads or num_cores())
    console.set_up_logging(verbose=verbose)


def _end_with_parent() -> None:
    """End this process when its parent has ended, so that a workflow that was killed leaves no orphan to meet its next run."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 1, an interruption is 130."""
    if os.environ.get("VJEPA2_END_WITH_PARENT") == "1":
        _end_with_parent()
    code: int | str | None = 0
    try:
        app(prog_name="vjepa2")
    except SystemExit as ended:
        # typer turns an interruption of a command into this code and says nothing.
        code = ended.code
        if code == _INTERRUPTED:
            console.say(_GO_ON)
    except Vjepa2Error as error:
        code = _REQUEUE if isinstance(error, StoppedError) else 1
        if not error.told:
            console.show_faults(error.faults if isinstance(error, WeightsError) else ())
            console.say(str(error) if isinstance(error, StoppedError) else f"error: {error}")
    except KeyboardInterrupt:
        code = _INTERRUPTED
        console.say(_GO_ON)
    except OSError as error:
        code = 1
        where = error.filename or "system"
        if is_disk_full(error):
            console.say(
                f"error: {where}: the disk is full; free some space and run the same command again, it goes on where it stopped"
            )
            sys.stdout.flush()
            os._exit(code)  # HDF5 would try to write once more at the interpreter's exit, and crash
        console.say(f"error: {where}: {error.strerror or error}")
    if _is_one_of_several():
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)  # the group's threads would wait for those that are gone, or abort
    sys.exit(code)


def _is_one_of_several() -> bool:
    if "torch" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
