"""`digits`: 1,797 real handwritten digits that scikit-learn carries in its package, resized to 28x28."""

import numpy as np

from tfmb.data.source import Normalization, Source, Splits

__all__ = ["load_digits"]

TEST_SIZE = 360
EPOCHS = 30


def load_digits() -> Splits:
    """Loads scikit-learn's digits as uint8 images `[n, 28, 28, 1]` with 10 classes.

    Returns:
        1,437 train and 360 test images, split with the classes in proportion, always the same way.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    images, labels = sklearn_digits(return_X_y=True)
    larger = zoom(images.reshape(-1, 8, 8), (1, 3.5, 3.5), order=1, grid_mode=True, mode="nearest")
    # The tiny term settles exact halves the same way on every processor, whatever its rounding.
    pixels = np.floor(larger * (255 / 16) + 0.5 + 1e-6).astype(np.uint8)[..., np.newaxis]
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, labels.astype(np.int64), test_size=TEST_SIZE, stratify=labels, random_state=0
    )
    train = Source.from_arrays(x_train, y_train, num_classes=10, name="digits/train")
    test = Source.from_arrays(x_test, y_test, num_classes=10, name="digits/test")
    return Splits(
        train=train,
        test=test,
        normalization=Normalization.measure(train.examples),
        epochs=EPOCHS,
        origin="scikit-learn's digits, resized from 8x8",
    )
