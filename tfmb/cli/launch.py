"""`tfmb launch`."""

from typing import Annotated

import typer

__all__ = ["launch"]


def launch(
    command: Annotated[
        list[str], typer.Argument(help="The program of each worker, after --.", metavar="-- COMMAND...")
    ],
    workers: Annotated[int | None, typer.Option(help="How many workers to start on this machine.")] = None,
    hosts: Annotated[str | None, typer.Option(help="ADDRESS:PORT of every worker, separated by commas.")] = None,
    index: Annotated[int | None, typer.Option(help="Which of the hosts this machine is, from 0.")] = None,
    restarts: Annotated[int, typer.Option(help="How often to start all again after a death.")] = 0,
) -> None:
    """Start the workers of a multi-worker run, each with TF_CONFIG; end all when one dies.

    The exit code is that of the first worker that failed (128 + n for signal n), or 69 where one hangs.

    With --restarts, give `tfmb train` a --run-dir: it goes on with its run there.

    TensorFlow's server listens on every network interface without authentication: use it in a trusted network.
    """
    from tfmb.distribution.launcher import launch as start

    code = start(
        command, workers=workers, hosts=None if hosts is None else hosts.split(","), index=index, restarts=restarts
    )
    raise typer.Exit(code)
