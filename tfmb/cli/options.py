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
        help="Cut batches into so many fixed parts: the same bits on any number of devices that divides it.",
        rich_help_panel=RUN,
    ),
]
MicroBatchSize = Annotated[
    int | None, typer.Option(help="Most examples in memory at once: gradient accumulation.", rich_help_panel=RUN)
]
JitCompile = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help=f"What XLA compiles: {', '.join(COMPILE_NAMES)}. auto: what a trial before a long run finds best.",
        rich_help_panel=RUN,
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        help="auto (TF_CONFIG's workers, else every GPU, else one CPU), one-device, mirrored, multi-worker or tpu.",
        rich_help_panel=RUN,
    ),
]
Devices = Annotated[
    int | None, typer.Option(help="How many devices; without a GPU, logical CPU devices.", rich_help_panel=RUN)
]
CheckpointEvery = Annotated[
    int, typer.Option(help="Updates between checkpoints in the run's directory.", rich_help_panel=RUN)
]
KeepCheckpoints = Annotated[
    int, typer.Option(help="How many of the last ones stay, besides the best.", rich_help_panel=RUN)
]
OnDivergence = Annotated[
    str, typer.Option(help="When the loss is not finite: stop, skip or restore.", rich_help_panel=RUN)
]
