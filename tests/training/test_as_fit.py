"""Programs of the kinds that people write: `tfmb.fit` trains what `fit` trains. Whole batches, float64, to 1e-11."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from same_as_fit import Fit, assert_same, by_keras, by_tfmb

import tfmb
from tfmb.backend import keras, tf

layers, losses, optimizers = keras.layers, keras.losses, keras.optimizers
pytestmark = pytest.mark.usefixtures("float64")
_random = np.random.default_rng(0)
X, REAL = _random.normal(size=(23, 4)), _random.normal(size=(23, 1))
CLASSES, WEIGHTS = _random.integers(0, 3, 23), _random.uniform(0.5, 2.0, 23)
ONE_HOT = np.eye(3)[CLASSES]


def dense(units: int = 1, activation: str | None = None, **compiled: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(units, activation)])
    model.compile(**{"optimizer": "adam", "loss": "mse", **compiled})
    return model


class Plain(keras.losses.Loss):
    """Of a class that nobody registered."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(Plain):
    """With an argument that a copy through its configuration would lose."""

    def __init__(self, factor: float = 1.0, **more: Any) -> None:
        super().__init__(**more)
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * super().call(y_true, y_pred)


def kept(y_true: Any, y_pred: Any) -> Any:
    """A vector whose first axis is not the rows."""
    there = y_true > 0
    return tf.square(tf.boolean_mask(y_true, there) - tf.boolean_mask(y_pred, there))


@pytest.mark.compile
@pytest.mark.parametrize(
    "loss",
    [Plain, lambda: Scaled(3.0), lambda: losses.Huber(0.1), lambda: kept, lambda: losses.MeanSquaredError(None)],
    ids=["unregistered", "with an argument", "Huber", "vector", "no reduction"],
)
def test_loss_objects_are_themselves(loss: Any) -> None:
    def program(fit: Fit) -> Any:
        model = dense(loss=loss(), optimizer=optimizers.SGD(0.05))
        return model, [fit(model, X, REAL, epochs=2)]

    assert_same(program)


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda **more: optimizers.SGD(0.05, momentum=0.9, nesterov=True, **more),
    "RMSprop": lambda **more: optimizers.RMSprop(0.01, momentum=0.5, centered=True, **more),
    "Adam": lambda **more: optimizers.Adam(0.01, amsgrad=True, **more),
    "AdamW": lambda **more: optimizers.AdamW(0.01, weight_decay=0.1, **more),
    "Adagrad": lambda **more: optimizers.Adagrad(0.1, **more),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", here(OPTIMIZERS, ["SGD", "Adam"], "compile"))
def test_fifty_updates_of_each_optimizer(name: str) -> None:
    def program(fit: Fit) -> Any:
        model = dense(optimizer=OPTIMIZERS[name](global_clipnorm=0.5, use_ema=True, ema_momentum=0.9))
        return model, [fit(model, X, REAL, epochs=10)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_a_new_rate_meets_kerass_form_of_momentum(name: str) -> None:
    def program(fit: Fit) -> Any:
        model, halve = dense(optimizer=OPTIMIZERS[name]()), lambda epoch, rate: rate / 2
        return model, [fit(model, X, REAL, epochs=3, callbacks=[keras.callbacks.LearningRateScheduler(halve)])]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.parametrize("name", here(OPTIMIZERS, ["Adam"], "compile"))
@pytest.mark.parametrize("constraint", here(["unit_norm", "non_neg"], ["unit_norm"], "compile"))
def test_constraints_hold_after_every_update(name: str, constraint: str) -> None:
    def program(fit: Fit) -> Any:
        first = layers.Dense(3, kernel_constraint=constraint)
        model = keras.Sequential([keras.Input((4,)), first, layers.Dense(1)])
        model.compile(OPTIMIZERS[name](), "mse")
        return model, [fit(model, X, REAL, epochs=2)]

    kernel = assert_same(program).get_weights()[0]
    if constraint == "unit_norm":
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, atol=1e-6)
    else:
        assert kernel.min() >= 0


@pytest.mark.compile
@pytest.mark.parametrize("clip", here(["none", "clipnorm", "global_clipnorm", "clipvalue"], ["none", "clipnorm"]))
@pytest.mark.parametrize("name", here(OPTIMIZERS, ["SGD", "Adam"]))
def test_rows_that_occur_again_in_a_batch_are_squared_and_clipped_one_by_one(name: str, clip: str) -> None:
    """Of an embedding: Keras works on the rows of `tf.IndexedSlices` before it adds up equal ones."""
    words, limits = np.random.default_rng(1).integers(0, 4, (20, 6)), {"clipnorm": 0.01, "clipvalue": 0.001}

    def program(fit: Fit) -> Any:
        model = keras.Sequential([keras.Input((6,)), layers.Embedding(4, 3, mask_zero=True), layers.GRU(3)])
        model.add(layers.Dense(1))
        given = {} if clip == "none" else {clip: limits.get(clip, 0.01)}
        model.compile(OPTIMIZERS[name](**given), "mse")
        return model, [fit(model, words, REAL[:20], epochs=1)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "Adagrad"])
def test_one_state_whoever_trains(name: str, saved: bool, tmp_path: Path) -> None:
    """Slots, count, schedule and averages: four ways of two trainings end alike, saved in between or not."""
    ends = []
    for first in (by_keras, by_tfmb):
        for second in (by_keras, by_tfmb):
            keras.utils.set_random_seed(0)
            rate = optimizers.schedules.ExponentialDecay(0.05, 3, 0.7)
            optimizer = OPTIMIZERS[name](use_ema=True)
            optimizer.learning_rate = rate
            model = dense(optimizer=optimizer)
            first(model, X, REAL, epochs=2)
            if saved:
                model.save(tmp_path / "a.keras")
                model = keras.models.load_model(tmp_path / "a.keras")
            second(model, X, REAL, epochs=1)
            assert int(model.optimizer.iterations) == 15
            ends.append([*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)])
    for end in ends[1:]:
        for found, right in zip(end, ends[0], strict=True):
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-11)


def test_what_was_saved_goes_on_in_keras_where_tfmb_is_not(tmp_path: Path) -> None:
    """The file names nothing of ours."""
    model = dense()
    by_tfmb(model, X, REAL)
    model.save(tmp_path / "a.keras")
    assert b"tfmb" not in (tmp_path / "a.keras").read_bytes()
    model.save_weights(tmp_path / "a.weights.h5")
    other = dense()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "a.weights.h5")
    for found, right in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, right)
    assert int(other.optimizer.iterations) == 5


@pytest.mark.compile
def test_a_backbone_is_frozen_and_then_tuned() -> None:
    images, labels = _random.uniform(size=(15, 32, 32, 3)), CLASSES[:15]

    def program(fit: Fit) -> Any:
        backbone = keras.applications.MobileNetV3Small(
            (32, 32, 3), minimalistic=True, include_top=False, weights=None, pooling="avg", include_preprocessing=False
        )
        backbone.trainable = False
        model = keras.Sequential([keras.Input((32, 32, 3)), backbone, layers.Dense(3)])
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        histories = []
        for rate, trainable in ((1e-2, False), (1e-4, True)):
            backbone.trainable = trainable
            model.compile(optimizers.Adam(rate), loss, metrics=["accuracy"])
            histories.append(fit(model, images, labels))
        return model, histories

    assert_same(program, atol=1e-9)  # BatchNormalization's divisions by small variances magnify rounding


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_frozen_model_is_scored() -> None:
    def program(fit: Fit) -> Any:
        model = dense()
        model.trainable = False
        return model, [fit(model, X, REAL)]

    with pytest.warns(UserWarning, match="no trainable weights"):
        assert_same(program)


WEIGHTED: dict[str, Any] = {
    "classes": ("sparse_categorical_crossentropy", CLASSES, {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
    "one-hot": ("categorical_crossentropy", ONE_HOT, {"class_weight": {0: 1.0, 1: 2.0}}),
    "samples": ("sparse_categorical_crossentropy", CLASSES, {"sample_weight": WEIGHTS}),
}


@pytest.mark.compile
@pytest.mark.parametrize("kind", here(WEIGHTED, ["classes"], "compile"))
def test_weights(kind: str) -> None:
    loss, y, given = WEIGHTED[kind]

    def program(fit: Fit) -> Any:
        model = dense(3, "softmax", loss=loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
        return model, [fit(model, X, y, epochs=2, validation_data=(X, y, WEIGHTS), **given)]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_weights_of_pixels() -> None:
    images, classes = _random.uniform(size=(10, 4, 4, 2)), _random.integers(0, 3, (10, 4, 4, 1))
    data = tf.data.Dataset.from_tensor_slices((images, classes)).batch(4)

    def program(fit: Fit) -> Any:
        model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 1, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
        return model, [fit(model, data, epochs=2, class_weight={0: 1.0, 1: 2.0, 2: 0.5})]

    assert_same(program)


@pytest.mark.compile
def test_metrics_of_every_kind() -> None:
    binary = (REAL > 0).astype("float64")

    def program(fit: Fit) -> Any:
        kinds = keras.metrics
        metrics = [
            kinds.AUC(name="auc"),
            kinds.PrecisionAtRecall(0.5, name="at"),
            kinds.F1Score(threshold=0.5, name="f1"),
        ]
        model = dense(1, "sigmoid", loss="binary_crossentropy", metrics=metrics)
        return model, [fit(model, X, binary, epochs=2, validation_split=0.2)]

    assert_same(program)


def test_two_outputs_by_name_with_regularisers() -> None:
    def program(fit: Fit) -> Any:
        inputs = keras.Input((4,))
        hidden = layers.Dense(4, "tanh", kernel_regularizer="l2", activity_regularizer="l1")(inputs)
        heads = {"b": layers.Dense(3, "softmax", name="b")(hidden), "a": layers.Dense(1, name="a")(hidden)}
        model = keras.Model(inputs, heads)
        model.compile(
            "adam",
            {"a": "mse", "b": "sparse_categorical_crossentropy"},
            loss_weights={"a": 1.0, "b": 0.3},
            metrics={"b": ["accuracy"]},
        )
        y, weights = {"a": REAL, "b": CLASSES}, {"a": WEIGHTS, "b": WEIGHTS}
        return model, [fit(model, X, y, epochs=2, sample_weight=weights, validation_split=0.2)]

    assert_same(program)


class Gauge(keras.layers.Layer):
    """Measures what goes through it, adds to the loss, draws a number and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")
        self.seed = keras.random.SeedGenerator(3)
        self.calls = tf.Variable(0, trainable=False)

    def call(self, inputs: Any) -> Any:
        self.seen.update_state(keras.ops.mean(keras.ops.abs(inputs)))
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        self.calls.assign_add(1)
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed, dtype=inputs.dtype)


class Own(keras.Model):
    """A loss, a metric and a step of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.gauge, self.out = layers.Dense(3), Gauge(), layers.Dense(1)
        self.penalty = keras.metrics.Mean(name="penalty")

    def call(self, inputs: Any) -> Any:
        return self.out(self.gauge(self.hidden(inputs)))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        penalty = keras.ops.mean(keras.ops.square(y_pred))
        self.penalty.update_state(penalty)
        return super().compute_loss(x, y, y_pred, sample_weight) + 0.1 * penalty

    def predict_step(self, data: Any) -> Any:
        return super().predict_step(data)[:, 0] * 2.0


class OwnScoring(Own):
    """Whose logs are its own too."""

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        super().compute_metrics(x, y, y_pred, sample_weight)
        return {"largest": keras.ops.max(y_pred), "loss": self._loss_tracker.result()}


class OwnTest(OwnScoring):
    """Whose validation names its logs differently from its training."""

    def test_step(self, data: Any) -> Any:
        return {"error": keras.ops.mean(keras.ops.abs(data[1] - self(data[0], training=False)))}


@pytest.mark.compile
@pytest.mark.parametrize("kind", here([Own, OwnScoring, OwnTest], [OwnTest], "compile"))
@pytest.mark.parametrize("loss", here(["mse", None], ["mse"], "compile"))
def test_a_models_own_loss_metrics_and_steps(kind: Any, loss: Any) -> None:
    def program(fit: Fit) -> Any:
        model = kind()
        model.compile(optimizers.SGD(0.05), loss)
        return model, [fit(model, X, REAL, epochs=2, validation_data=(X, REAL))]

    model = assert_same(program)
    np.testing.assert_allclose(tfmb.predict(model, X).shape, (23,))
    right = model.evaluate(X, REAL, verbose=0, return_dict=True)
    assert set(tfmb.evaluate(model, X, REAL, verbose=0, return_dict=True)) == set(right)


@pytest.mark.compile
def test_a_loss_that_is_all_the_layers_own_needs_no_targets() -> None:
    def program(fit: Fit) -> Any:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Gauge()])
        model.compile("adam")
        return model, [fit(model, X, epochs=2), fit(model, X, REAL)]

    assert_same(program)


def test_evaluate_returns_its_list_in_the_order_of_compile() -> None:
    model = dense(metrics=["mse", "mae"], weighted_metrics=["cosine_similarity"])
    for weights in (None, WEIGHTS):
        right = model.evaluate(X, REAL, sample_weight=weights, verbose=0)
        found = tfmb.evaluate(model, X, REAL, sample_weight=weights, verbose=0)
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-11)


@pytest.mark.compile
@pytest.mark.parametrize("monitor", here(["val_accuracy", "val_mse", "accuracy"], ["val_accuracy"]))
@pytest.mark.parametrize("kind", here(["EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint"], ["EarlyStopping"]))
def test_callbacks_find_the_direction_of_a_metric(kind: str, monitor: str, tmp_path: Path) -> None:
    def program(fit: Fit) -> Any:
        given: dict[str, Any] = {"monitor": monitor}
        given |= (
            {"filepath": tmp_path / "a.keras", "save_best_only": True} if kind == "ModelCheckpoint" else {"patience": 0}
        )
        callback = getattr(keras.callbacks, kind)(**given)
        model = dense(3, "softmax", loss="categorical_crossentropy", metrics=["accuracy", "mse"])
        return model, [fit(model, X, ONE_HOT, epochs=3, validation_data=(X, ONE_HOT), callbacks=[callback])]

    assert_same(program)


@pytest.mark.compile
@pytest.mark.parametrize("kind", here(["swapped", "saved"], ["swapped"], "compile"))
def test_averages_of_weights_are_there_for_callbacks(kind: str, tmp_path: Path) -> None:
    def program(fit: Fit) -> Any:
        path = tmp_path / "a.keras"
        callback = keras.callbacks.SwapEMAWeights() if kind == "swapped" else keras.callbacks.ModelCheckpoint(path)
        model = dense(optimizer=optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
        histories = [fit(model, X, REAL, epochs=2, validation_data=(X, REAL), callbacks=[callback])]
        if kind == "saved":
            model = keras.models.load_model(path)
            histories.append(fit(model, X, REAL))
        return model, histories

    assert_same(program)


class Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise RuntimeError("as of a machine that dies")


@pytest.mark.compile
def test_backup_and_restore_goes_on_where_it_was(tmp_path: Path) -> None:
    def program(fit: Fit) -> Any:
        model, histories = dense(), []
        folder = tmp_path / fit.__name__
        with pytest.raises(RuntimeError, match="dies"):
            fit(model, X, REAL, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(folder), Interrupts()])
        histories.append(fit(model, X, REAL, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(folder)]))
        assert histories[0].epoch == [2, 3]
        return model, histories

    model = assert_same(program)
    # Keras keeps the epoch with the model: its next training would begin there, and so make no update.
    assert tfmb.fit(model, X, REAL, verbose=0).epoch == [0]


def test_backup_and_restore_beside_resume_is_refused(tmp_path: Path) -> None:
    callback = keras.callbacks.BackupAndRestore(tmp_path / "b")
    with pytest.raises(tfmb.errors.ConfigError, match="leave the callback out"):
        by_tfmb(dense(), X, REAL, callbacks=[callback], run_dir=tmp_path / "a", resume=True)


class Batches(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen.append(("begin", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(("end", batch, {key: round(float(value), 10) for key, value in logs.items()}))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*must see every batch")
@pytest.mark.parametrize("steps", here([2, 3], [3], "compile"))
def test_steps_per_execution_decides_what_batch_hooks_see(steps: int) -> None:
    seen = []

    def program(fit: Fit) -> Any:
        model, callback = dense(steps_per_execution=steps, metrics=["mae"]), Batches()
        history = fit(model, X, REAL, epochs=2, callbacks=[callback])
        seen.append(callback.seen)
        return model, [history]

    assert_same(program)
    assert seen[1] == seen[0]


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*ran out", "ignore:`shuffle=True` was passed")
@pytest.mark.parametrize("steps", here([2, 4, 7], [4], "compile"))
def test_an_epoch_ends_where_data_of_unknown_size_does(steps: int) -> None:
    def program(fit: Fit) -> Any:
        spec = (tf.TensorSpec((4,), "float64"), tf.TensorSpec((1,), "float64"))
        data = tf.data.Dataset.from_generator(lambda: zip(X, REAL, strict=True), output_signature=spec).batch(5)
        model = dense(optimizer="sgd")  # whose updates do not depend on their count: see docs/moving.md
        return model, [fit(model, data, epochs=2, steps_per_epoch=steps)]

    assert_same(program)


@pytest.mark.compile
def test_random_layers_draw_what_they_draw_in_fit() -> None:
    def program(fit: Fit) -> Any:
        noisy = [layers.Dropout(0.5, seed=1), layers.GaussianNoise(0.1, seed=2)]
        model = keras.Sequential([keras.Input((4,)), *noisy, layers.Dense(1)])
        model.compile("sgd", "mse")
        return model, [fit(model, X, REAL, epochs=2)]

    assert_same(program)
