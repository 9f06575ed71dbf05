"""`tfmb doctor`: versions, devices, strategy, data caches."""

import platform
from typing import Annotated, Any

import typer

from tfmb.cli.screen import emit_json, start_tensorflow
from tfmb.cli.threads import best_of, cores, counts, seconds_by_threads
from tfmb.config import TrainConfig

__all__ = ["doctor"]


def doctor(
    profile: Annotated[
        bool, typer.Option("--profile", help="Time the parts of an update, and say what helps.")
    ] = False,
    model: Annotated[str, typer.Option(help="For --profile: cnn, mlp, resnet or package.module:build.")] = "cnn",
    batch_size: Annotated[int, typer.Option(help="For --profile.")] = 64,
    dataset: Annotated[str, typer.Option(help="For --profile: as in tfmb train.")] = "digits",
    mirror: Annotated[str | None, typer.Option(help="For --profile: as in tfmb train.")] = None,
    replicas: Annotated[int | None, typer.Option(help="For --profile: as in tfmb train.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="For --profile: as in tfmb train. Default: compares one with one a core.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON on standard output.")] = False,
) -> None:
    """Show what tfmb runs on: versions, devices, the default strategy, and the data it has."""
    config = TrainConfig(
        model=model, batch_size=batch_size, dataset=dataset, mirror=mirror, replicas=replicas, threads=threads
    )
    start_tensorflow(threads)
    from tfmb.training.run_dir import versions

    if profile:
        report = {"profile": _profile(config)}
    else:
        report = {"versions": versions(), "machine": _machine(), "devices": _devices(), "data": _data()}
    if json:
        emit_json(report)
        return
    for title, entries in report.items():
        print(title)
        for key, value in entries.items():
            if key != "seconds":  # for programs: it stands in "an update" too
                print(f"  {key}: {value}")


def _profile(config: TrainConfig) -> dict[str, Any]:
    """What an update spends its time on."""
    from tfmb.training.job import profile_job

    found = profile_job(config)
    parts = {
        name: f"{1000 * getattr(found, name):.3f} ms, {share:.0%}" for name, share in found.shares().items()
    }  # dispatch is what is left
    by_threads = seconds_by_threads(config, counts()) if config.threads is None else {}
    fewer = best_of(by_threads, found.whole)
    return {
        "of": f"{config.model}, batch {found.batch_size}",
        "an update": f"{1000 * found.whole:.3f} ms, {found.batch_size / found.whole:,.0f} examples/s",
        **{f"with {count} thread(s)": f"{1000 * seconds:.3f} ms" for count, seconds in by_threads.items()},
        **parts,
        "advice": found.advice() + ("" if fewer is None else f"; --threads {fewer}"),
        "seconds": found.whole,
    }


def _machine() -> dict[str, Any]:
    return {"processor": platform.processor() or platform.machine(), "usable cores": cores()}


def _devices() -> dict[str, Any]:
    from tfmb.backend import tf
    from tfmb.distribution import describe, make_strategy

    found = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    strategy = describe(make_strategy("auto", joins=False))
    return {
        "physical": ", ".join(found),
        "strategy auto": f"{strategy['name']}, {strategy['replicas']} replica(s): {', '.join(strategy['devices'])}",
        "threads within an operation": tf.config.threading.get_intra_op_parallelism_threads() or "TensorFlow's choice",
    }


def _data() -> dict[str, Any]:
    from tfmb.data import tfds_images
    from tfmb.data.cache import cache_root

    root = cache_root()
    decoded = sorted(str(path.relative_to(root / "datasets")) for path in (root / "datasets").glob("*/[0-9]*"))
    mirror = tfds_images.mirror_from_environment()
    at_hand = mirror or tfds_images.is_cached("mnist")
    return {
        "cache": str(root),
        "decoded datasets": ", ".join(decoded) or "none",
        tfds_images.MIRROR_VARIABLE: mirror or "not set",
        "--dataset auto": "mnist" if at_hand else "mnist, if its host answers; else digits",
    }
