"""`--deterministic`: what must be set before TensorFlow is imported, and before it starts."""

import os

__all__ = ["start_pinned"]

# Fixed, and not the number of cores: a sum's bits depend on how many threads share it.
_THREADS = 2


def start_pinned() -> None:
    """Imports TensorFlow with oneDNN, threads and deterministic ops pinned, and finds its devices."""
    from tfmb.environment.console import quiet_start, start_tensorflow

    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    with quiet_start():
        from tfmb.runs.numerics import pin_threads_and_ops

        pin_threads_and_ops(_THREADS)
    start_tensorflow()
