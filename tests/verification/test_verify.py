"""`tfmb.verify`: right loops pass, each planted fault is failed by its name."""

from typing import Any

import loops
import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.verification.checks import Report

DATA = (loops.X, loops.Y)
# Each fault, and the checks that it must fail by its name; all others pass.
PLANTED = {
    "missing 1/b": {
        "mean gradient", "last batch", "momentum", "bias correction", "micro-batches", "clipping",
        "average of weights", "schedule",
    },
    "clip before reduce": {"clipping"},
    "no bias correction": {"bias correction"},
    "dropped tail": {"last batch", "momentum", "bias correction", "micro-batches"},
    "EMA per micro-batch": {"average of weights"},
    "schedule per micro-batch": {"schedule"},
}  # fmt: skip


def named(report: Report) -> dict[str, tuple[str, ...]]:
    return {check.name: check.diagnosis for check in report.failed}


@pytest.mark.compile
def test_a_right_loop_passes() -> None:
    report = tfmb.verify(loops.loop(), loops.build, DATA)
    assert report.passed, report
    statuses = {check.name: check.status for check in report.checks}
    assert statuses.pop("replicas") == "not applicable"
    assert set(statuses.values()) == {"passed"}
    assert all("float64, within 1e-11" in check.detail for check in report.checks if check.status == "passed")
    assert str(report).endswith("train: verified: 8 passed, 0 failed, 1 not applicable")


@pytest.mark.compile
@pytest.mark.parametrize("fault", here(PLANTED, list(PLANTED)[::2]))
def test_each_planted_fault_is_failed_by_name(fault: str) -> None:
    report = tfmb.verify(loops.loop(fault), loops.build, DATA)
    assert not report.passed
    assert named(report) == dict.fromkeys(PLANTED[fault], (fault,))
    assert report.diagnosis == (fault,)
    assert f"failed          {report.failed[0].name}: {fault} (" in str(report)


@pytest.mark.compile
@pytest.mark.parametrize("fault", ["", "missing 1/b", "clip before reduce"])
def test_in_32_bits_too(fault: str) -> None:
    report = tfmb.verify(loops.loop(fault), loops.build, DATA, precision="float32")
    assert set(named(report)) >= PLANTED.get(fault, set()) - {"bias correction"}  # Adam hides a factor from 32 bits
    assert report.diagnosis == ((fault,) if fault else ())
    assert report.passed == (not fault)


@pytest.mark.compile
def test_fit_on_one_device() -> None:
    report = tfmb.verify(loops.keras_fit, loops.build, DATA)
    assert named(report) == {
        "micro-batches": ("accumulates over the end of an epoch",),
        "average of weights": ("EMA per micro-batch",),
        "schedule": ("schedule per micro-batch",),
    }


@pytest.mark.slow
def test_fit_on_two_replicas() -> None:
    report = tfmb.verify(loops.keras_fit_on_replicas, loops.build, DATA)
    assert named(report) == {"replicas": ("mean of the parts' means",), "clipping on replicas": ("clip before reduce",)}


def our_fit(
    build_model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, shuffle: bool, micro_batches: int,
    replicas: int, global_clipnorm: Any, ema_momentum: Any, schedule: Any,
) -> Any:  # fmt: skip
    ours = {"sgd": tfmb.optimizers.SGD, "adam": tfmb.optimizers.Adam}[optimizer["class_name"]]
    average = {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    config = {**optimizer["config"], "global_clipnorm": global_clipnorm, **average}
    config |= {} if schedule is None else {"learning_rate": schedule}
    given: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "shuffle": shuffle, "verbose": 0}
    given |= {"micro_batch_size": -(-batch_size // micro_batches)} if micro_batches > 1 else {}
    return tfmb.fit(build_model, x, y, optimizer=ours(**config), devices=replicas, **given).model


@pytest.mark.compile
def test_our_own_fit_passes_all_checks() -> None:
    report = tfmb.verify(our_fit, loops.build, DATA)
    assert report.passed, report
    assert {check.status for check in report.checks} == {"passed"}
    assert report.check("clipping on replicas").status == "passed"


@pytest.mark.slow
def test_two_faults_are_named_together() -> None:
    right = loops.loop("dropped tail")

    def train(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int) -> None:
        first = {**optimizer, "config": {**optimizer["config"]}}
        first["config"]["learning_rate"] *= batch_size
        right(model, x, y, first, batch_size, epochs, 1, None, None, None)

    report = tfmb.verify(train, loops.build_plain, DATA)
    assert report.check("mean gradient").diagnosis == ("missing 1/b",)
    assert report.check("last batch").diagnosis == ("missing 1/b", "dropped tail")


@pytest.mark.slow
def test_what_no_fault_explains_fails_without_a_name() -> None:
    def train(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int) -> None:
        loops.loop()(model, x[::-1], y[::-1], optimizer, batch_size, epochs, 1, None, None, None)

    report = tfmb.verify(train, loops.build, DATA)
    assert report.check("mean gradient").status == "failed"
    assert report.diagnosis == ()
    assert "no known fault explains it" in str(report)


def test_a_loop_that_does_nothing_or_breaks_is_failed() -> None:
    def nothing(model: Any, x: Any, y: Any, **settings: Any) -> None:
        pass

    def breaks(model: Any, x: Any, y: Any, **settings: Any) -> None:
        model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))

    assert tfmb.verify(nothing, loops.build, DATA).diagnosis == ("nothing was trained",)
    assert "not finite" in tfmb.verify(breaks, loops.build, DATA).failed[0].detail


@pytest.mark.slow
def test_a_loop_with_an_optimizer_of_its_own() -> None:
    def train(model: Any, x: Any, y: Any, batch_size: int, epochs: int) -> None:
        model.compile(keras.optimizers.Adam(0.001), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)

    report = tfmb.verify(train, loops.build, DATA, optimizer=keras.optimizers.Adam(0.001))
    assert report.passed, report
    assert report.check("bias correction").status == "passed"
    assert report.check("momentum").detail == "the function uses adam and takes no other optimizer"
    other = tfmb.verify(train, loops.build, DATA, optimizer=keras.optimizers.SGD(0.001))
    assert not other.passed
    with pytest.raises(ConfigError, match="train takes no optimizer: say which one it uses"):
        tfmb.verify(train, loops.build, DATA)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmsprop", "adamw", "momentum"])
def test_other_rules_are_keras_own(name: str) -> None:
    def train(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int) -> None:
        model.compile(keras.optimizers.get(optimizer), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)

    report = tfmb.verify(train, loops.build, DATA, optimizer=name)
    assert report.passed, report
    assert "within 1e-11" in report.check("last batch").detail


def test_a_loop_that_cannot_be_run_in_64_bits() -> None:
    def train(model: Any, x: Any, y: Any, learning_rate: float, batch_size: int, epochs: int) -> None:
        for _ in range(epochs):
            for start in range(0, len(x), batch_size):
                inputs = tf.constant(x[start : start + batch_size], tf.float32)
                with tf.GradientTape() as tape:
                    outputs = model.call(inputs, training=True)
                    loss = tf.reduce_mean((outputs - tf.one_hot(y[start : start + batch_size], 3)) ** 2)
                variables = [v.value for v in model.trainable_variables]
                for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
                    v.assign_sub(tf.constant(learning_rate, tf.float32) * g)

    def build() -> Any:
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])

    def loss(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean((y_pred - tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), 3)) ** 2, -1)

    report = tfmb.verify(train, build, DATA, optimizer="sgd", loss=loss)
    assert report.passed, report
    assert "in 64 bits" in report.check("64 bits").detail
    assert "float32, within 1e-06" in report.check("last batch").detail


@pytest.mark.slow
def test_batch_normalization_in_whole_batches() -> None:
    def build() -> Any:
        normalized = keras.layers.BatchNormalization()
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), normalized, keras.layers.Dense(3)])
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def by_hand(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, **features: Any) -> None:
        training = features.get("training", True)
        made = keras.optimizers.get(optimizer)
        for _ in range(epochs):
            for start in range(0, len(x), batch_size):
                rows = slice(start, start + batch_size)
                with tf.GradientTape() as tape:
                    outputs = model(x[rows], training=training)
                    loss = tf.reduce_mean(
                        keras.losses.sparse_categorical_crossentropy(y[rows], outputs, from_logits=True)
                    )
                made.apply_gradients(
                    zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights, strict=True)
                )

    def forgotten(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int) -> None:
        by_hand(model, x, y, optimizer, batch_size, epochs, training=False)

    report = tfmb.verify(by_hand, build, DATA)
    assert report.passed, report
    assert tfmb.verify(forgotten, build, DATA).diagnosis == ("called with training=False",)


def test_bad_input_is_refused_by_name() -> None:
    train = loops.loop()
    refused: list[tuple[str, Any]] = [
        (r"must take \(model, x, y\)", lambda: tfmb.verify(lambda model: None, loops.build, DATA)),
        ("needs 'rate', which tfmb cannot give", lambda: tfmb.verify(lambda m, x, y, rate: 0, loops.build, DATA)),
        ("data has 40 rows", lambda: tfmb.verify(train, loops.build, DATA, batch_size=16)),
        ("batch_size=3", lambda: tfmb.verify(train, loops.build, DATA, batch_size=3)),
        ("precision='half'", lambda: tfmb.verify(train, loops.build, DATA, precision="half")),
        ("optimizer 'lion' has no reference", lambda: tfmb.verify(train, loops.build, DATA, optimizer="lion")),
        (
            "amsgrad of Adam",
            lambda: tfmb.verify(train, loops.build, DATA, optimizer=keras.optimizers.Adam(amsgrad=True)),
        ),
        ("has no loss", lambda: tfmb.verify(train, lambda: keras.Sequential([keras.Input((5,))]), DATA)),
        ("returned no model", lambda: tfmb.verify(lambda build_model, x, y, optimizer: None, loops.build, DATA)),
        ("draws random numbers in training", lambda: tfmb.verify(train, random_model, DATA)),
    ]
    for words, call in refused:
        with pytest.raises(ConfigError, match=words):
            call()


def random_model() -> Any:
    class Noisy(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * tf.random.uniform(tf.shape(x), dtype=x.dtype)

    model = keras.Sequential([keras.Input((5,)), Noisy(), keras.layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
