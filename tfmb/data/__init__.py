"""Data: from a name or from arrays to `Source`s, and from (seed, epoch, step) to batches.

Example:
    >>> splits = tfmb.data.load("digits")
    >>> splits.train.examples.shape, splits.test.size
    ((1437, 28, 28, 1), 360)
"""

from tfmb.data.augment import Augmentation
from tfmb.data.load import load, load_user_data
from tfmb.data.source import Normalization, Source, Splits

__all__ = ["Augmentation", "Normalization", "Source", "Splits", "load", "load_user_data"]
