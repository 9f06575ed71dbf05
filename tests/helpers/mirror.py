"""Where the official MNIST files lie; tests marked `mnist` are skipped where they do not."""

import os
from pathlib import Path

__all__ = ["MIRROR"]

MIRROR = Path(os.environ.get("TFMB_MNIST_MIRROR") or Path(__file__).parents[3] / "shared" / "data" / "mnist")
