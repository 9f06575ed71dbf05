"""Run as a script in a fresh process: loads a SavedModel and answers the rows in `inputs.npz` in `outputs.npz`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf


def main(folder: str, scratch: str) -> None:
    """Applies `serving_default` of the SavedModel in `folder` to the arrays in `scratch`."""
    served = tf.saved_model.load(folder).signatures["serving_default"]
    with np.load(Path(scratch) / "inputs.npz", allow_pickle=False) as rows:
        outputs = served(**{name: tf.constant(rows[name]) for name in rows.files})
    arrays = {name: value.numpy() for name, value in outputs.items()}
    np.savez(Path(scratch) / "outputs.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
