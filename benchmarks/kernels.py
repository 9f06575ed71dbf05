"""What the CNN's convolutions and dense layers take by TensorFlow's own kernels alone: no loop on them can be faster.

    python -m benchmarks.kernels [--batch-sizes 1 8 64 256]

Each product of an update (forward, for the inputs, for the kernel) is timed alone with all cores, in turns. Beside the
kernel's gradient stands the same as nine matrix products, one a place of the 3x3 kernel. The share is that of the rate
of large matrix products in the same turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.limit import FLOPS_AN_EXAMPLE
from benchmarks.results import publish

ROUNDS, SECONDS, CUBE = 7, 0.1, 2048
CONVOLUTIONS = {"convolution 1": (28, 1, 32), "convolution 2": (14, 32, 64)}
DENSE = {"dense 1": (3136, 128), "dense 2": (128, 10)}


def works(batch_size: int) -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """Each product by name, with what it is made of."""
    from tfmb.backend import tf

    strides = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    found: dict[str, tuple[Callable[..., Any], list[Any]]] = {}
    for name, (side, before, after) in CONVOLUTIONS.items():
        x, kernel = (tf.random.normal(shape) for shape in ([batch_size, side, side, before], [3, 3, before, after]))
        gradient = tf.random.normal([batch_size, side, side, after])
        shape = tf.constant([batch_size, side, side, before])

        def of_inputs(gradient: Any, kernel: Any, shape: Any = shape) -> Any:
            return tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=kernel, out_backprop=gradient, **strides)

        def of_kernel(x: Any, gradient: Any, shape: Any = kernel.shape) -> Any:
            return tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=shape, out_backprop=gradient, **strides)

        found[f"{name}, forward"] = lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), [x, kernel]
        if before > 1:  # nobody asks for the images' gradient
            found[f"{name}, inputs"] = of_inputs, [gradient, kernel]
        found[f"{name}, kernel"] = of_kernel, [x, gradient]
        found[f"{name}, kernel by nine products"] = by_nine_products, [x, gradient]
    for name, (before, after) in DENSE.items():
        x, kernel, gradient = (
            tf.random.normal(shape) for shape in ([batch_size, before], [before, after], [batch_size, after])
        )
        found[f"{name}, forward"] = tf.matmul, [x, kernel]
        found[f"{name}, inputs"] = (
            lambda gradient, kernel: tf.matmul(gradient, kernel, transpose_b=True),
            [gradient, kernel],
        )
        found[f"{name}, kernel"] = lambda x, gradient: tf.matmul(x, gradient, transpose_a=True), [x, gradient]
    cube = tf.random.normal([CUBE, CUBE])
    found["product"] = tf.matmul, [cube, cube]
    return found


def by_nine_products(x: Any, gradient: Any) -> Any:
    """The gradient of a 3x3 kernel with same padding, place by place."""
    from tfmb.backend import tf

    side, before, after = x.shape[1], x.shape[-1], gradient.shape[-1]
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = tf.reshape(gradient, [-1, after])
    parts = [
        tf.matmul(tf.reshape(padded[:, i : i + side, j : j + side], [-1, before]), rows, transpose_a=True)
        for i in range(3)
        for j in range(3)
    ]
    return tf.reshape(tf.stack(parts), [3, 3, before, after])


def repeated(work: Callable[..., Any], arguments: list[Any]) -> Callable[[int], float]:
    """A number of times -> the seconds of one of so many in one call."""
    from tfmb.backend import tf

    @tf.function(autograph=False)
    def loop(count: Any) -> Any:
        def body(step: Any, total: Any) -> Any:
            # The first argument changes a little from one to the next, else the work would be done once for all.
            changed = arguments[0] + tf.cast(step, tf.float32) * 1e-9
            return step + 1, total + tf.reshape(work(changed, *arguments[1:]), [-1])[0]

        return tf.while_loop(lambda step, _: step < count, body, (0, 0.0), parallel_iterations=1)[1]

    def seconds(count: int) -> float:
        started = time.perf_counter()
        loop(tf.constant(count)).numpy()
        return (time.perf_counter() - started) / count

    return seconds


def measure(batch_size: int) -> dict[str, float]:
    """Median seconds of each product."""
    loops = {name: repeated(work, arguments) for name, (work, arguments) in works(batch_size).items()}
    counts = {}
    for name, loop in loops.items():
        loop(2)
        counts[name] = max(2, round(SECONDS / loop(2)))
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            taken[name].append(loop(counts[name]))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64, 256])
    options = parser.parse_args()
    from tfmb.environment.console import start_tensorflow

    start_tensorflow()
    found = {}
    for batch_size in options.batch_sizes:
        print(f"batch size {batch_size}", file=sys.stderr, flush=True)
        found[batch_size] = measure(batch_size)
    names = [name for name in next(iter(found.values())) if name != "product"]
    rows = [f"| milliseconds at batch size | {' | '.join(map(str, found))} |", "|---" * (len(found) + 1) + "|"]
    rows += [f"| {name} | {' | '.join(f'{1000 * one[name]:.3f}' for one in found.values())} |" for name in names]
    library = [name for name in names if not name.endswith("products")]
    sums = {size: sum(one[name] for name in library) for size, one in found.items()}
    rows.append(f"| all but the nine products | {' | '.join(f'{1000 * value:.3f}' for value in sums.values())} |")
    rate = {size: 2 * CUBE**3 / one["product"] for size, one in found.items()}
    shares = {size: size * FLOPS_AN_EXAMPLE["cnn"] / sums[size] / rate[size] for size in found}
    rows.append(f"| their share of the products' rate | {' | '.join(f'{value:.0%}' for value in shares.values())} |")
    publish("kernels", {"seconds": found, "shares": shares}, rows)


if __name__ == "__main__":
    main()
