"""The machine's limits: how fast it multiplies matrices and copies memory, with TensorFlow's own kernels.

python -m benchmarks.limit
"""

import json
import statistics
import time
from typing import Any

import numpy as np

_SIZE, _MEGABYTES, _REPEATS = 2048, 256, 9
# Floating-point operations of an example, forward and backward: three products of each layer's kernel.
_CNN = 3 * 2 * (28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 + 3136 * 128 + 128 * 10)
FLOPS_AN_EXAMPLE = {"cnn": _CNN, "mlp": 3 * 2 * (784 * 128 + 128 * 10)}


def measure() -> dict[str, float]:
    """GFLOP/s of a 2048-cube product by dtype, and GB/s read and written by a copy: medians."""
    import tensorflow as tf

    found: dict[str, float] = {}
    for dtype in (tf.float32, tf.bfloat16):
        matrix = tf.cast(tf.random.normal((_SIZE, _SIZE)), dtype)
        product = tf.function(lambda matrix=matrix: tf.matmul(matrix, matrix))
        found[f"{dtype.name}_gflops"] = 2 * _SIZE**3 / _median_seconds(product) / 1e9
    source = np.ones(_MEGABYTES * 2**20, np.uint8)
    target = np.empty_like(source)
    found["copy_gb_per_second"] = 2 * source.nbytes / _median_seconds(lambda: np.copyto(target, source)) / 1e9
    return found


def _median_seconds(work: Any) -> float:
    work()
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    print(json.dumps(measure()))
