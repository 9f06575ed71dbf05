"""`tfmb run`: a Keras program as it stands, trained by our loop."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.cli.idle import given_options
from tfmb.cli.options import takes
from tfmb.cli.program import Program
from tfmb.environment.console import OWN_PROCESS
from tfmb.environment.requirements import need_folder
from tfmb.errors import ConfigError, DirectoryError
from tfmb.jobs.config import RUN, TrainConfig
from tfmb.patching.keras_patch import patch_keras

__all__ = ["run"]

_SHARED = (
    *("checkpoint_every", "virtual_replicas", "micro_batch_size", "strategy", "devices", "jit_compile"),
    "on_divergence",
)
_FOR_RUNS = ("checkpoint_every", "allow_mismatch")


@takes(TrainConfig, *_SHARED)
def run(
    context: typer.Context,
    options: dict[str, Any],
    program: Annotated[str, typer.Argument(help="The script to run, or with -m the module.", metavar="PROGRAM")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="The program's own arguments.", metavar="ARGUMENT", show_default=False)
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="PROGRAM is the name of a module, as in python -m.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with an error where tfmb would leave a call to Keras.")
    ] = False,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the runs fit-1, fit-2, ... The same command goes on with runs that were stopped.",
            rich_help_panel=RUN,
        ),
    ] = None,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch", help="Go on even if something differs from the run's beginning.", rich_help_panel=RUN
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The seed of the order of examples in each fit. Default: as the program seeds.", rich_help_panel=RUN
        ),
    ] = None,
) -> Program:
    """Run an unchanged Keras program with tfmb's fit, evaluate and predict in place of Keras's.

    Give options before PROGRAM. A call that tfmb refuses is left to Keras, and a line on standard error says why.

    The exit code is the program's. With --run-dir, SIGTERM and SIGINT save the run and end it with exit code 75.
    """
    config = TrainConfig(**options, seed=0 if seed is None else seed)
    given = given_options(context)
    if run_dir is None:
        for name in [*_FOR_RUNS, *(["on_divergence"] if config.on_divergence == "restore" else [])]:
            if name in given:
                raise ConfigError(f"--{name.replace('_', '-')} needs --run-dir")
    else:
        if (run_dir / "run.json").exists():
            raise DirectoryError(f"{run_dir} is a run itself: give another --run-dir")
        if config.strategy != "multi-worker":
            need_folder("--run-dir", run_dir)
    chosen = {name: context.params[name] for name in given & {*_SHARED, "allow_mismatch", "seed"}}
    if "checkpoint_every" in chosen:
        chosen |= config.checkpoints
    return Program(
        name=program,
        arguments=arguments or [],
        is_module=module,
        patch=patch_keras(run_dir, strict, **chosen),
        own_process=context.find_root().obj == OWN_PROCESS,
    )
