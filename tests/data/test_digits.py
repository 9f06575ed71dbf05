"""scikit-learn's digits, as the project uses them."""

import random

import numpy as np
import pytest

from tfmb.data import Splits, load
from tfmb.data.source import Normalization

TRAIN = "e22268eb5d31e926f2a4842dad2172624ae7e0c076791b173b7d964ae6221050"
TEST = "4231f5329601ab8b41331e0554654f1c09a0b7bf5bdef3f5bc2e0cb035ede1d1"


def test_sizes_and_types(digits: Splits) -> None:
    assert digits.test is not None
    for source, size in ((digits.train, 1437), (digits.test, 360)):
        assert source.examples.shape == (size, 28, 28, 1)
        assert source.examples.dtype == np.uint8
        assert source.labels.dtype == np.int64
        assert source.num_classes == 10
        assert source.image_shape == (28, 28, 1)
    assert digits.normalization == Normalization(mean=0.3054, std=0.3247)
    assert digits.epochs == 30


def test_the_classes_are_split_in_proportion(digits: Splits) -> None:
    assert digits.test is not None
    train, test = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert len(train) == len(test) == 10
    np.testing.assert_allclose(test, (train + test) * 360 / 1797, atol=1)


def test_no_image_is_in_both_splits(digits: Splits) -> None:
    assert digits.test is not None
    train, test = ({image.tobytes() for image in source.examples} for source in (digits.train, digits.test))
    assert not train & test
    assert len(train | test) == 1797


def test_the_images_are_scikit_learns_enlarged(digits: Splits) -> None:
    """Each image, made small again, is nearest to one of the originals, and of its class."""
    from sklearn.datasets import load_digits

    originals, classes = load_digits(return_X_y=True)
    assert digits.test is not None
    images = digits.test.examples[:, :, :, 0] / 255 * 16
    small = images[:, 1::7, :][:, :, 1::7]  # the centre of every second original pixel
    distances = ((small[:, None] - originals.reshape(-1, 8, 8)[None, :, ::2, ::2]) ** 2).sum((2, 3))
    np.testing.assert_array_equal(classes[distances.argmin(1)], digits.test.labels)
    assert images.min() == 0
    assert images.max() == pytest.approx(16)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_data_never_changes(seed: int) -> None:
    np.random.seed(seed)
    random.seed(seed)
    splits = load("digits")
    assert splits.test is not None
    assert splits.train.fingerprint == TRAIN
    assert splits.test.fingerprint == TEST
