"""Options that `tfmb train` and `tfmb run` share, declared once."""

from typing import Annotated

import typer

from tfmb.choices import COMPILE_NAMES

__all__ = [
    "RUN",
    "CheckpointEvery",
    "Devices",
    "JitCompile",
    "KeepCheckpoints",
    "MicroBatchSize",
    "OnDivergence",
    "Strategy",
    "VirtualReplicas",
]

# The panel of `--help` that they stand in.
RUN = "Run"

VirtualReplicas = Annotated[
    int | None,
    typer.Option(
        help="The number of shards in which each batch is always summed, a power of two: "
        "the same bits on any number of devices that divides it.",
        rich_help_panel=RUN,
    ),
]
MicroBatchSize = Annotated[
    int | None,
    typer.Option(help="Gradient accumulation: at most this many examples in memory at once.", rich_help_panel=RUN),
]
JitCompile = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help=f"The work that XLA compiles: {', '.join(COMPILE_NAMES)}. auto takes what a trial before a long run finds "
        "fastest.",
        rich_help_panel=RUN,
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        help="auto (the workers in TF_CONFIG, else all GPUs, else one CPU), one-device, mirrored, multi-worker or tpu.",
        rich_help_panel=RUN,
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        help="The number of devices to use. Without a GPU these are logical CPU devices.", rich_help_panel=RUN
    ),
]
CheckpointEvery = Annotated[
    int, typer.Option(help="The number of updates between two checkpoints in the run's directory.", rich_help_panel=RUN)
]
KeepCheckpoints = Annotated[
    int, typer.Option(help="The number of newest checkpoints to keep. The best one is kept too.", rich_help_panel=RUN)
]
OnDivergence = Annotated[
    str,
    typer.Option(
        help="What to do when the loss or a gradient is not finite: stop, skip the batch, or restore a checkpoint.",
        rich_help_panel=RUN,
    ),
]
