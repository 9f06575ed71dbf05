"""`tfmb doctor`: versions, machine, devices, cluster, packages, data caches, and what is wrong with them."""

import os
import shutil
from importlib import metadata
from typing import Annotated, Any

import typer

from tfmb.cli.cluster import slurm_job, tf_config
from tfmb.cli.extras import extras
from tfmb.cli.gpus import gpus
from tfmb.cli.idle import given_options, refuse_idle
from tfmb.cli.options import Json, takes
from tfmb.cli.threads import best_of, cores, counts, seconds_by_threads
from tfmb.environment.console import emit_json, say, start_tensorflow
from tfmb.environment.processor import instruction_sets, processor_name
from tfmb.jobs.config import TrainConfig

__all__ = ["busy", "doctor"]

_PROFILED = ("dataset", "mirror", "model", "batch_size", "devices")


@takes(TrainConfig, *_PROFILED, defaults={"dataset": "digits"})
def doctor(
    context: typer.Context,
    options: dict[str, Any],
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Time the parts of an update of the training that the other options describe."),
    ] = False,
    json: Json = False,
) -> None:
    """Show what tfmb runs on: versions, machine, devices, cluster, packages and data. Warn of what is wrong."""
    config = TrainConfig(**options)
    if not profile:
        refuse_idle(given_options(context) - {"json"}, sorted(context.params), "is for --profile: give that too")
    load = os.getloadavg()[0]  # before TensorFlow's own start adds to it
    start_tensorflow()
    from tfmb.runs.run_dir import versions

    if profile:
        report = {"profile": _profile(config)}
    else:
        report = {"versions": versions(), **_surroundings(load), "data": _data()}
        report["warnings"] = report.pop("warnings")  # last
    if json:
        emit_json(report)
        return
    for title, entries in report.items():
        if not entries:
            continue
        print(title)
        for key, value in entries.items():
            if key != "seconds":  # for programs: it stands in "an update" too
                print(f"  {key}: {value}")


def _profile(config: TrainConfig) -> dict[str, Any]:
    """What an update spends its time on."""
    from tfmb.jobs.timing import profile_job

    say(f"timing updates of {config.model} on {config.dataset}")
    found = profile_job(config)
    parts = {
        name: f"{1000 * getattr(found, name):.3f} ms, {share:.0%}" for name, share in found.shares().items()
    }  # dispatch is what is left
    by_threads = seconds_by_threads(config, counts())
    fewer = best_of(by_threads, found.whole)
    return {
        "of": f"{config.model}, batch {found.batch_size}",
        "an update": f"{1000 * found.whole:.3f} ms, {found.batch_size / found.whole:,.0f} examples/s",
        **{f"with {count} thread(s)": f"{1000 * seconds:.3f} ms" for count, seconds in by_threads.items()},
        **parts,
        "advice": found.advice() + ("" if fewer is None else f"; --threads {fewer}"),
        "seconds": found.whole,
    }


def busy(load: float, of_machine: int) -> str | None:
    """What to say of a machine that is busy; None of one that is not.

    Args:
        load: the mean number of processes of the whole machine that ran or waited to, over the last minute.
        of_machine: its cores, be they this process's or not.
    """
    if load <= of_machine:
        return None
    return f"{load:.1f} processes want {of_machine} core(s): what is measured now is spoilt; wait until they have ended"


def _surroundings(load: float) -> dict[str, dict[str, Any]]:
    """The sections on machine, devices, cluster and packages, and the warnings of each by its name."""
    devices, seen = _devices()
    on_gpus, of_gpus = gpus(seen, os.environ, smi=shutil.which("nvidia-smi"))
    by_tf_config, of_tf_config = tf_config(os.environ)
    by_slurm, of_slurm = slurm_job(os.environ)
    packages, of_packages = extras(metadata.requires("tfmb") or [])
    found = {
        "load": busy(load, os.cpu_count() or 1), "GPU": of_gpus, "TF_CONFIG": of_tf_config, "Slurm": of_slurm,
        "packages": of_packages,
    }  # fmt: skip
    return {
        "machine": {
            "processor": processor_name(),
            "instruction sets": ", ".join(instruction_sets()) or "not known",
            "usable cores": cores(),
            "load": round(load, 2),
        },
        "devices": {**devices, **on_gpus},
        "cluster": {**by_tf_config, **by_slurm},
        "extras": packages,
        "warnings": {name: warning for name, warning in found.items() if warning is not None},
    }


def _devices() -> tuple[dict[str, Any], int]:
    """What TensorFlow has, and how many GPUs of it."""
    from tfmb.backend import tf
    from tfmb.distribution.strategy import describe, make_strategy

    found = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    strategy = describe(make_strategy("auto", joins=False))
    entries = {
        "physical": ", ".join(found),
        "strategy auto": f"{strategy['name']}, {strategy['replicas']} replica(s): {', '.join(strategy['devices'])}",
        "threads within an operation": tf.config.threading.get_intra_op_parallelism_threads() or "TensorFlow's choice",
    }
    return entries, sum(name.startswith("GPU") for name in found)


def _data() -> dict[str, Any]:
    from tfmb.data import tfds_images
    from tfmb.storage.cache import cache_root

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
