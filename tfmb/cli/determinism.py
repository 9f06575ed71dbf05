"""`--deterministic`: what must be set before TensorFlow starts, and just after."""

import os

__all__ = ["pin_after_import", "pin_before_import"]

_THREADS = 2


def pin_before_import() -> None:
    """Fixes what TensorFlow reads when it is imported."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


def pin_after_import() -> None:
    """Fixes threads and asks for deterministic ops."""
    from tfmb.backend import tf

    tf.config.threading.set_intra_op_parallelism_threads(_THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(_THREADS)
    tf.config.experimental.enable_op_determinism()
