"""`tfmb launch`."""

from typing import Annotated

import typer

__all__ = ["launch"]


def launch(
    command: Annotated[
        list[str], typer.Argument(help="The program that each worker runs, after --.", metavar="-- COMMAND...")
    ],
    workers: Annotated[int | None, typer.Option(help="The number of workers to start on this machine.")] = None,
    hosts: Annotated[
        str | None, typer.Option(help="For several machines: ADDRESS:PORT of every worker, separated by commas.")
    ] = None,
    index: Annotated[int | None, typer.Option(help="This machine's place in --hosts, counted from 0.")] = None,
    restarts: Annotated[int, typer.Option(help="How many times to start all workers again after one died.")] = 0,
) -> None:
    """Start the workers of a multi-worker run, each with its TF_CONFIG. When one dies, end all.

    The exit code is that of the first worker that failed (128 + n for signal n), or 69 if a worker hangs.

    With --restarts, give `tfmb train` a --run-dir, so that it goes on with its run there.

    TensorFlow's server listens on every network interface without authentication: use it in a trusted network.
    """
    from tfmb.distribution.launcher import launch as start

    code = start(
        command, workers=workers, hosts=None if hosts is None else hosts.split(","), index=index, restarts=restarts
    )
    raise typer.Exit(code)
