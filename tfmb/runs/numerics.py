"""The process-wide settings that decide the bits of a result."""

import os
from typing import Any

from tfmb.backend import tf
from tfmb.environment.processor import processor_name

__all__ = ["ask_for_exact_numerics", "keep_additions_in_order", "numerics", "pin_threads_and_ops"]

# TensorFlow has no public way to ask whether it is on.
_asked = {"op_determinism": False}


def ask_for_exact_numerics(jit_compile: bool) -> None:
    """Turns off what makes float32 results depend on the device: for the whole process, as TensorFlow has it.

    Args:
        jit_compile: whether XLA compiles gradients: it has no deterministic gradient of max-pooling.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if tf.config.list_physical_devices("GPU") and not jit_compile:  # pragma: no cover - needs a GPU
        _enable_op_determinism()


def keep_additions_in_order() -> None:
    """Has Grappler leave sums as they are written, for the whole process, as TensorFlow has it.

    Its arithmetic optimisation gathers additions into others, in an order that differs from one trace of a function to
    the next: the copies of one training, or a run and the one that goes on with it, then differ by an ulp.
    """
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def pin_threads_and_ops(threads: int) -> None:
    """Fixes the number of threads, before TensorFlow starts, and asks for ops that give the same bits each time."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    _enable_op_determinism()


def _enable_op_determinism() -> None:
    tf.config.experimental.enable_op_determinism()
    _asked["op_determinism"] = True


def numerics() -> dict[str, Any]:
    """The settings, for records. Threads of 0 are TensorFlow's own choice, one for each core."""
    return {
        "op_determinism": _asked["op_determinism"],
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": processor_name(),
    }
