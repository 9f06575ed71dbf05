"""What `tensorflow_datasets.load` would give: made-up rows of the dataset's features."""

from typing import Any

__all__ = ["load"]

ROWS = 160


def load(
    name: str,
    *,
    split: Any = None,
    batch_size: int | None = None,
    shuffle_files: bool = False,
    as_supervised: bool = False,
    with_info: bool = False,
    **_: Any,
) -> Any:
    """Takes the arguments of `tensorflow_datasets.load` and gives what it gives, of ROWS made-up examples."""
    import keras

    rows = rows_of(name)
    info = Info(rows)
    names = split if split is not None else {"train": "train", "test": "test"}
    supervised = [key for key in ("image", "text", "label") if key in rows]

    def part(split: Any) -> Any:
        import tensorflow as tf

        chosen = tuple(rows[key] for key in supervised) if as_supervised else rows
        data = tf.data.Dataset.from_tensor_slices(chosen)
        return data.batch(ROWS if batch_size == -1 else batch_size) if batch_size else data

    data = keras.tree.map_structure(part, names)
    return (data, info) if with_info else data


class Info:
    """What scripts read of a dataset's info."""

    def __init__(self, rows: dict[str, Any]) -> None:
        class Split:
            num_examples = ROWS

        self.splits = dict.fromkeys(("train", "test", "validation", "unsupervised"), Split)
        self.features = {key: Feature(value) for key, value in rows.items()}


class Feature:
    """One feature: of a label its classes."""

    def __init__(self, rows: Any) -> None:
        self.num_classes = int(rows.max()) + 1 if rows.dtype.kind == "i" else 0
        self.names = [f"class {number}" for number in range(self.num_classes)]
        self.shape, self.dtype = rows.shape[1:], rows.dtype

    def int2str(self, number: int) -> str:
        """The name of a class."""
        return self.names[int(number)]


def rows_of(name: str) -> dict[str, Any]:
    """Made-up rows of a dataset.

    Raises:
        KeyError: there are none for it.
    """
    import numpy as np

    of = np.random.default_rng(0)
    name = name.split(":")[0].split("/")[0]
    if name in IMAGES:
        size, classes = IMAGES[name]
        shape = (ROWS, *size)
        return {
            "image": of.integers(0, 256, shape).astype("uint8"),
            "label": np.arange(ROWS) % classes,
            "id": np.arange(ROWS).astype("str"),
        }
    if name in TEXTS:
        words = np.array(["good", "bad", "film", "actor", "the", "a", "was", "is", "not", "very"])
        texts = np.array([" ".join(of.choice(words, of.integers(5, 60))) for _ in range(ROWS)])
        return {"text": texts, "label": np.arange(ROWS) % TEXTS[name]}
    if name == "wine_quality":
        names = ["fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides"]
        names += ["free sulfur dioxide", "total sulfur dioxide", "density", "pH", "sulphates", "alcohol"]
        features = {key: of.random(ROWS).astype("float32") for key in names}
        return {"features": features, "quality": of.integers(3, 9, ROWS)}
    raise KeyError(f"no made-up rows for the dataset {name}")


IMAGES = {
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "emnist": ((28, 28, 1), 62),
    "cifar10": ((32, 32, 3), 10),
    "cifar10_corrupted": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "svhn_cropped": ((32, 32, 3), 10),
    "omniglot": ((105, 105, 3), 1623),
    "cats_vs_dogs": ((180, 180, 3), 2),
    "tf_flowers": ((180, 180, 3), 5),
    "oxford_flowers102": ((180, 180, 3), 102),
    "stanford_dogs": ((180, 180, 3), 120),
    "stl10": ((96, 96, 3), 10),
    "caltech_birds2011": ((180, 180, 3), 200),
    "colorectal_histology": ((150, 150, 3), 8),
    "eurosat": ((64, 64, 3), 10),
    "food101": ((180, 180, 3), 101),
}
TEXTS = {"imdb_reviews": 2, "ag_news_subset": 4, "yelp_polarity_reviews": 2}
