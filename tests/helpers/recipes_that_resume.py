"""Recipes in which every pair of settings occurs; each is killed, resumed, and compared with one that was not.

A row is one level of each factor, by its name. What `fit` refuses on purpose is in `valid`.
"""

import hashlib
import itertools
import json
import os
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from trained_by_two import kill_after_checkpoint, two_workers

__all__ = ["FACTORS", "Row", "all_pairs", "covering", "pairs_of", "train", "valid"]

Row = dict[str, str]
FACTORS: dict[str, list[str]] = {
    "precision": ["float32", "float64", "mixed_bfloat16", "mixed_float16"],
    "optimizer": ["sgd", "momentum", "rmsprop", "adam", "adamw", "keras adam", "keras nadam", "keras accumulating"],
    "schedule": ["constant", "cosine", "plateau"],
    "clip": ["none", "clipnorm", "global_clipnorm", "clipvalue"],
    "averages": ["none", "ema"],
    "augment": ["none", "shift"],
    "dropout": ["none", "ours", "stock"],
    "cut": ["whole", "virtual", "micro"],
    "replicas": ["1", "2"],
    "workers": ["1", "2"],
    "compiled": ["nothing", "update", "gradients", "step", "call"],
    "noise": ["no", "yes"],
    "divergence": ["stop", "skip", "restore"],
    "data": ["arrays", "source", "dataset"],
    "callbacks": ["none", "early stopping", "best checkpoint", "rate by epoch"],
    "state": ["none", "batch normalization", "auc", "layer", "tracked metric", "own test_step"],
}
ROWS, BATCH_SIZE, EPOCHS, EVERY = 52, 8, 5, 3


def valid(row: Row) -> bool:
    """Whether a row, of which some factors may be open yet, is a recipe that `fit` takes."""

    def has(factor: str, *levels: str) -> bool:
        return row.get(factor) in levels

    cut = has("cut", "virtual", "micro") or has("replicas", "2") or has("workers", "2")
    whole = {"cut", "replicas", "workers"} <= set(row) and not cut
    return not any(
        (
            has("noise", "yes") and whole,
            has("noise", "yes") and has("compiled", "step", "call"),
            has("compiled", "step", "call") and cut,
            has("compiled", "call") and (has("data", "source", "dataset") or has("augment", "shift")),
            has("compiled", "update", "call", "step") and has("optimizer", "keras nadam", "keras accumulating"),
            has("data", "dataset") and (has("augment", "shift") or has("cut", "micro")),
            has("schedule", "cosine") and (has("divergence", "restore") or has("callbacks", "rate by epoch")),
            has("state", "layer", "tracked metric", "own test_step") and (cut or has("noise", "yes")),
        )
    )


def pairs_of(row: Row) -> set[tuple[Any, ...]]:
    """The pairs of levels of two factors in a row."""
    return set(itertools.combinations(sorted(row.items()), 2))


def all_pairs() -> set[tuple[Any, ...]]:
    """Every pair of levels of two factors that may stand together."""
    levels = [(factor, level) for factor, names in FACTORS.items() for level in names]
    return {
        tuple(sorted(pair))
        for pair in itertools.combinations(levels, 2)
        if pair[0][0] != pair[1][0] and valid(dict(pair))
    }


def covering(seed: int = 0) -> list[Row]:
    """Rows in which every pair occurs that can: each time the best of some drawn around a pair that is left."""
    draw, left, rows = random.Random(seed), all_pairs(), list[Row]()
    while left:
        pair = min(left)
        drawn = [row for row in (_around(dict(pair), draw) for _ in range(40)) if row is not None]
        if not drawn:
            left.discard(pair)  # three factors together forbid it
            continue
        best = max(drawn, key=lambda row: len(pairs_of(row) & left))
        rows.append(best)
        left -= pairs_of(best)
    return rows


def _around(begun: Row, draw: random.Random) -> Row | None:
    row = dict(begun)
    for factor in draw.sample(list(FACTORS), len(FACTORS)):
        if factor in row:
            continue
        levels = [level for level in FACTORS[factor] if valid({**row, factor: level})]
        if not levels:
            return None
        row[factor] = draw.choice(levels)
    return {factor: row[factor] for factor in FACTORS}


def train(row: Row, run_dir: str, killed_after: float | None = None) -> None:
    """Trains a recipe, or goes on with it, and prints a digest of all that it came to; call it in a process of its own.

    Args:
        row: of `FACTORS`.
        run_dir: for its run.
        killed_after: seconds after the first checkpoint when the process is to be killed, or both workers at once; None
            for never.
    """
    if row["workers"] == "2":
        two_workers(lambda rank: _train(row, run_dir, rank), Path(run_dir), killed_after)
        return
    if killed_after is not None:
        about = (Path(run_dir), killed_after, [os.getpid()])
        threading.Thread(target=kill_after_checkpoint, args=about, daemon=True).start()
    _train(row, run_dir, None)


def _train(row: Row, run_dir: str, rank: int | None) -> None:
    """Trains in this process, alone or as one of two workers, by its rank."""
    import tfmb
    from tfmb.backend import keras

    if rank is None:
        tfmb.configure_replicas(2)
    else:
        tfmb.distribution.make_strategy("multi-worker")  # before TensorFlow starts
    keras.config.set_dtype_policy(row["precision"])
    if row["precision"] == "float64":
        keras.config.set_floatx("float64")
    x, y = _data(row)
    data: dict[str, Any] = {"x": x, "y": y, "batch_size": BATCH_SIZE}
    if row["data"] == "source":
        data = {"x": _Source(x, y), "batch_size": BATCH_SIZE}
    elif row["data"] == "dataset":
        from tfmb.backend import tf

        exact = tf.data.Options()
        exact.deterministic = True
        data = {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE).with_options(exact)}
    options: dict[str, Any] = {"on_divergence": row["divergence"]}
    if row["cut"] == "virtual":
        options["virtual_replicas"] = 2
    elif row["cut"] == "micro":
        options["micro_batch_size"] = 4
    if row["augment"] != "none":
        options["augment"] = tfmb.data.Augmentation(shift=1)
    if row["replicas"] != "1":
        options["devices"] = int(row["replicas"])
    Path(run_dir).parent.mkdir(exist_ok=True)
    callbacks = _callbacks(row, Path(f"{run_dir}-files-{rank or 0}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = tfmb.fit(
            lambda: _model(row),
            **data,
            epochs=EPOCHS,
            seed=3,
            verbose=0,
            validation_data=(x[:9], y[:9]),
            jit_compile=row["compiled"],
            measure_noise_scale=row["noise"] == "yes",
            callbacks=callbacks,
            run_dir=run_dir,
            resume=True,
            checkpoint_every=EVERY,
            **options,
        )
    best = [str(callback.best) for callback in callbacks if hasattr(callback, "best")]
    log = None if rank else Path(run_dir) / "metrics.jsonl"  # which the first worker may be writing yet
    print("digest", rank, _digest(history, log, best), flush=True)


def _digest(history: Any, log: Path | None, best: list[str]) -> str:
    digest = hashlib.sha256()
    model = history.model
    for variable in (*model.variables, *model.optimizer.variables):
        digest.update(np.ascontiguousarray(np.asarray(variable.numpy())).tobytes())
    digest.update(json.dumps([history.history, history.epoch, best], default=float, sort_keys=True).encode())
    if log is not None:
        digest.update(log.read_bytes())
    return digest.hexdigest()


def _data(row: Row) -> tuple[np.ndarray, np.ndarray]:
    random_ = np.random.default_rng(0)
    x = random_.integers(0, 256, (ROWS, 6, 6, 1), dtype=np.uint8)
    return x, (x.mean((1, 2, 3)) > 127).astype("int64")


class _Source:
    """Examples by number."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, number: int) -> Any:
        return self._x[number], self._y[number]


def _callbacks(row: Row, folder: Path) -> list[Any]:
    from tfmb.backend import keras

    found: list[Any] = []
    if row["callbacks"] == "early stopping":
        found.append(keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.05, restore_best_weights=True))
    elif row["callbacks"] == "best checkpoint":
        path = str(folder / "best.weights.h5")
        found.append(keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True, save_weights_only=True))
    elif row["callbacks"] == "rate by epoch":
        found.append(keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.75))
    if row["schedule"] == "plateau":
        found.append(keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.1))
    return found


def _model(row: Row) -> Any:
    import tfmb
    from tfmb.backend import keras

    layers = keras.layers
    more = {
        "none": [],
        "ours": [tfmb.layers.Dropout(0.3)],
        "stock": [layers.Dropout(0.3, seed=4)],
    }[row["dropout"]]
    if row["state"] == "batch normalization":
        more = [*more, layers.BatchNormalization()]
    elif row["state"] == "layer":
        more = [*more, _counting()]
    elif row["state"] == "tracked metric":
        more = [*more, _measuring()]
    inputs = keras.Input((6, 6, 1), dtype="uint8")
    hidden = layers.Rescaling(1 / 255)(inputs)
    hidden = layers.Dense(6, "tanh")(layers.Flatten()(hidden))
    for layer in more:
        hidden = layer(hidden)
    outputs = layers.Dense(1, "sigmoid")(hidden)
    kind = _own_test_step() if row["state"] == "own test_step" else keras.Model
    model = kind(inputs, outputs)
    metrics = ["accuracy", *(["auc"] if row["state"] == "auc" else [])]
    model.compile(_optimizer(row), "binary_crossentropy", metrics=metrics)
    return model


def _counting() -> Any:
    from tfmb.backend import keras

    class Counting(keras.layers.Layer):
        """Moves a state of its own that later steps depend on."""

        def build(self, shape: Any) -> None:
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.count.assign_add(1.0)
            return inputs * keras.ops.cast(1.0 + 0.01 * self.count, inputs.dtype)

    return Counting()


def _measuring() -> Any:
    from tfmb.backend import keras

    class Measuring(keras.layers.Layer):
        """Has a metric, whose state is in no list of weights."""

        def __init__(self) -> None:
            super().__init__()
            self.mean_of_outputs = keras.metrics.Mean(name="mean_of_outputs")

        def call(self, inputs: Any) -> Any:
            self.mean_of_outputs.update_state(inputs)
            return inputs

    return Measuring()


def _own_test_step() -> Any:
    from tfmb.backend import keras

    class Own(keras.Model):
        def test_step(self, data: Any) -> Any:
            found = super().test_step(data)
            return {"loss": found["loss"], "mine": 2.0 * found["loss"]}

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().compute_metrics(x, y, y_pred, sample_weight)

    return Own


def _optimizer(row: Row) -> Any:
    from tfmb import optimizers
    from tfmb.backend import keras

    theirs = row["optimizer"].startswith("keras")
    rate: Any = 0.05
    if row["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(0.05, 30) if theirs else optimizers.schedules.Cosine(0.05, 30)
    more: dict[str, Any] = {} if row["clip"] == "none" else {row["clip"]: 0.05}
    if row["averages"] == "ema":
        more |= {"use_ema": True, "ema_momentum": 0.9}
    make: dict[str, Any] = {
        "sgd": lambda: optimizers.SGD(rate, **more),
        "momentum": lambda: optimizers.SGD(rate, momentum=0.9, **more),
        "rmsprop": lambda: optimizers.RMSprop(rate, momentum=0.5, centered=True, **more),
        "adam": lambda: optimizers.Adam(rate, **more),
        "adamw": lambda: optimizers.AdamW(rate, **more),
        "keras adam": lambda: keras.optimizers.Adam(rate, **more),
        "keras nadam": lambda: keras.optimizers.Nadam(rate, **more),
        "keras accumulating": lambda: keras.optimizers.SGD(
            rate, momentum=0.9, **{**more, "gradient_accumulation_steps": 3}
        ),
    }
    found = make[row["optimizer"]]()
    return found if theirs else optimizers.as_keras(found)
