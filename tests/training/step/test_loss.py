"""Losses as sums: Keras's value on the whole batch, however the batch is cut."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.step.loss import LossSums, LossTerms

losses = keras.losses
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
ROWS = 11
_random = np.random.default_rng(0)
CLASSES = _random.integers(0, 3, ROWS)
TARGETS: dict[str, Any] = {
    "sparse": CLASSES,
    "column": CLASSES[:, np.newaxis],
    "one-hot": np.eye(3, dtype="float32")[CLASSES],
    "real": _random.normal(size=(ROWS, 3)).astype("float32"),
    "images": _random.normal(size=(ROWS, 2, 4, 3)).astype("float32"),
}
PREDICTIONS = tf.nn.softmax(_random.normal(size=(ROWS, 3)).astype("float32"))
PICTURES = tf.constant(_random.normal(size=(ROWS, 2, 4, 3)).astype("float32"))
WEIGHTS = tf.constant(np.linspace(0.0, 2.0, ROWS).astype("float32"))
PIXEL_WEIGHTS = tf.reshape(tf.range(ROWS * 8, dtype=tf.float32), (ROWS, 2, 4))


def compile_loss_of(loss: Any, weights: Any, y: list[Any], y_pred: list[Any]) -> Any:
    """What `compile` makes of a loss, once it has seen the outputs."""
    inputs = keras.Input((3,))
    heads = [keras.layers.Identity(name=name)(inputs) for name in names_of(y_pred)]
    model = keras.Model(inputs, heads if len(heads) > 1 else heads[0])
    model.compile(loss=loss, loss_weights=weights)
    model._compile_loss(*(list(each) if len(heads) > 1 else each[0] for each in (y, y_pred)))
    return model._compile_loss


def names_of(y_pred: list[Any]) -> list[str]:
    return [f"output_{i}" for i in range(len(y_pred))]


def objective_of(loss: Any, y: list[Any], y_pred: list[Any], weights: Any = None) -> LossTerms:
    """The objective of a compiled model that has seen the outputs once."""
    loss_terms = LossTerms()
    loss_terms.resolve(compile_loss_of(loss, weights, y, y_pred), names_of(y_pred))
    return loss_terms


def part_sums(loss_terms: LossTerms, y: list[Any], y_pred: list[Any], weight: list[Any], cuts: list[int]) -> list[Any]:
    """The sums of each part of the batch, cut before the rows named."""
    size = len(y_pred[0])
    bounds = [0, *sorted(cuts), size]

    def rows(arrays: list[Any], start: int, stop: int) -> list[Any]:
        return [None if array is None else _rows(array, start, stop) for array in arrays]

    return [
        loss_terms.sums(
            names_of(y_pred),
            rows(y, a, b),
            rows(y_pred, a, b),
            rows(weight, a, b),
            None,
            tf.constant(b - a, tf.float32),
            tf.constant(size, tf.float32),
            bool(cuts),
        )
        for a, b in itertools.pairwise(bounds)
    ]


def _rows(array: Any, start: int, stop: int) -> Any:
    part = array[start:stop]
    mask = getattr(array, "_keras_mask", None)
    if mask is not None:
        part._keras_mask = mask[start:stop]
    return part


def value(loss_terms: LossTerms, parts: list[LossSums]) -> tuple[float, float]:
    """The loss that is reported, and the objective that is minimised, from the sums of all parts."""
    reported = loss_terms.mean(sum(p.numerators for p in parts), sum(p.denominators for p in parts))
    counts = sum(p.counts for p in parts)
    return float(reported), float(sum(sum(p.objectives[k] for p in parts) / counts[k] for k in range(len(counts))))


def function(y_true: Any, y_pred: Any) -> Any:
    return tf.reduce_sum(tf.abs(y_true - y_pred), -1)


def test_every_reduction_of_keras_is_known() -> None:
    for reduction in REDUCTIONS:
        losses.MeanSquaredError(reduction=reduction)
    with pytest.raises(ValueError, match="reduction"):
        losses.MeanSquaredError(reduction="another")


@pytest.mark.parametrize(
    ("make", "target", "output"),
    [
        (losses.SparseCategoricalCrossentropy, "sparse", PREDICTIONS),
        (losses.SparseCategoricalCrossentropy, "column", PREDICTIONS),
        (losses.CategoricalCrossentropy, "one-hot", PREDICTIONS),
        (losses.BinaryCrossentropy, "one-hot", PREDICTIONS),
        (losses.MeanSquaredError, "real", PREDICTIONS),
        (losses.MeanAbsoluteError, "images", PICTURES),
        (losses.CosineSimilarity, "real", PREDICTIONS),
    ],
    ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
)
def test_sums_of_one_part_are_keras_loss(make: Callable[..., Any], target: str, output: Any) -> None:
    for reduction in REDUCTIONS:
        for weight in (None, PIXEL_WEIGHTS if target == "images" else WEIGHTS):
            loss = make(reduction=reduction)
            expected = float(loss(TARGETS[target], output, weight))
            loss_terms = objective_of(loss, [TARGETS[target]], [output])
            reported, minimised = value(loss_terms, part_sums(loss_terms, [TARGETS[target]], [output], [weight], []))
            assert reported == pytest.approx(expected, rel=1e-6), reduction
            assert minimised == pytest.approx(expected, rel=1e-6), reduction
            assert loss.reduction == reduction  # the user's object is as it was


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, ROWS), min_size=1, max_size=4),
    reduction=st.sampled_from(REDUCTIONS),
    weighted=st.booleans(),
    masked=st.booleans(),
)
def test_sums_of_parts_add_up_to_the_whole(cuts: list[int], reduction: str, weighted: bool, masked: bool) -> None:
    output = tf.identity(PICTURES)
    if masked:
        output._keras_mask = tf.constant(_random.random((ROWS, 2, 4)) < 0.7)
    weight = PIXEL_WEIGHTS if weighted else None
    loss = losses.MeanSquaredError(reduction=reduction)
    expected = float(loss(TARGETS["images"], output, weight))
    loss_terms = objective_of(loss, [TARGETS["images"]], [output])
    reported, minimised = value(loss_terms, part_sums(loss_terms, [TARGETS["images"]], [output], [weight], cuts))
    assert reported == pytest.approx(expected, rel=1e-5)
    assert minimised == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, ROWS), min_size=1, max_size=3), weighted=st.booleans())
def test_several_outputs_add_up_to_the_weighted_losses(cuts: list[int], weighted: bool) -> None:
    given_losses = [losses.CategoricalCrossentropy(), losses.MeanSquaredError(reduction="sum"), function]
    outputs, targets = [PREDICTIONS, PICTURES, PREDICTIONS], [TARGETS["one-hot"], TARGETS["images"], TARGETS["real"]]
    weight = WEIGHTS if weighted else None
    picture_weight = None if weight is None else tf.ones((ROWS, 2, 4)) * weight[:, None, None]
    each = [
        float(given_losses[0](targets[0], outputs[0], weight)),
        float(given_losses[1](targets[1], outputs[1], picture_weight)),
        float(tf.reduce_mean(function(targets[2], outputs[2]) * (1.0 if weight is None else weight))),
    ]
    loss_terms = objective_of(given_losses, targets, outputs, [2.0, 0.1, -1.0])
    parts = part_sums(loss_terms, targets, outputs, [weight, picture_weight, weight], cuts)
    reported, minimised = value(loss_terms, parts)
    expected = 2 * each[0] + 0.1 * each[1] - each[2]
    assert reported == pytest.approx(expected, rel=1e-5)
    assert minimised == pytest.approx(expected, rel=1e-5)
    means = sum(p.numerators for p in parts) / sum(p.denominators for p in parts)
    np.testing.assert_allclose(means, each, rtol=1e-5)


def test_gradient_of_parts_is_the_whole_batches() -> None:
    kernel = tf.Variable(_random.normal(size=(3, 3)).astype("float32"))
    x, y = tf.constant(TARGETS["real"]), TARGETS["one-hot"]
    loss = losses.CategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        whole = loss(y, x @ kernel, WEIGHTS)
    expected = tape.gradient(whole, kernel)
    loss_terms = objective_of(loss, [y], [x @ kernel])
    with tf.GradientTape() as tape:
        parts = part_sums(loss_terms, [y], [x @ kernel], [WEIGHTS], [2, 7])
        total = sum(p.objectives[0] for p in parts)
    found = tape.gradient(total, kernel) / sum(p.counts[0] for p in parts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "output", "expected"),
    [
        ("sparse", PREDICTIONS, losses.sparse_categorical_crossentropy),
        ("column", PREDICTIONS, losses.sparse_categorical_crossentropy),
        ("one-hot", PREDICTIONS, losses.categorical_crossentropy),
        ("binary", PREDICTIONS[:, :1], losses.binary_crossentropy),
    ],
    ids=["sparse", "column", "one-hot", "binary"],
)
def test_crossentropy_by_name_is_the_one_that_fits(target: str, output: Any, expected: Any) -> None:
    y = (CLASSES > 0).astype("float32")[:, np.newaxis] if target == "binary" else TARGETS[target]
    for name in ("crossentropy", "CE"):
        loss_terms = objective_of(name, [y], [output])
        reported, _ = value(loss_terms, part_sums(loss_terms, [y], [output], [None], [4]))
        assert reported == pytest.approx(float(tf.reduce_mean(expected(y, output))), rel=1e-6)


def test_function_that_returns_its_mean_counts_by_rows() -> None:
    def mean(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.square(y_true - y_pred))

    expected = float(losses.MeanSquaredError()(TARGETS["real"], PREDICTIONS))
    for cuts in ([], [4]):
        loss_terms = objective_of(mean, [TARGETS["real"]], [PREDICTIONS])
        reported, minimised = value(loss_terms, part_sums(loss_terms, [TARGETS["real"]], [PREDICTIONS], [None], cuts))
        assert reported == pytest.approx(expected, rel=1e-6)
        assert minimised == pytest.approx(expected, rel=1e-6)


def test_function_of_one_dimensional_targets_is_not_broadcast() -> None:
    def squares(y_true: Any, y_pred: Any) -> Any:
        return tf.square(y_true - y_pred)

    column, flat = PREDICTIONS[:, :1], TARGETS["real"][:, 0]
    loss_terms = objective_of(squares, [flat], [column])
    reported, _ = value(loss_terms, part_sums(loss_terms, [flat], [column], [None], []))
    assert reported == pytest.approx(np.mean((flat - column.numpy()[:, 0]) ** 2), rel=1e-6)


@pytest.mark.parametrize("make", [losses.Dice, losses.Tversky])
def test_stock_loss_of_the_whole_batch_is_exact_or_refused_when_cut(make: Callable[..., Any]) -> None:
    # These are ratios of sums over the batch, so the means of parts do not add up.
    target, output = (TARGETS["real"] > 0).astype("float32"), tf.sigmoid(3 * TARGETS["real"][::-1])
    expected = float(make()(target, output))
    loss_terms = objective_of(make(), [target], [output])
    assert value(loss_terms, part_sums(loss_terms, [target], [output], [None], []))[0] == pytest.approx(expected)
    partition = objective_of(make(), [target], [output])
    try:
        reported, _ = value(partition, part_sums(partition, [target], [output], [None], [5]))
    except ConfigError as error:
        message = str(error)
        assert make.__name__.lower() in message
    else:
        assert reported == pytest.approx(expected, rel=1e-6)


def refused(words: str, action: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        action()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_summed_is_refused_by_name() -> None:
    real, pair = TARGETS["real"], [TARGETS["real"], TARGETS["real"]]
    outputs = [PREDICTIONS, PREDICTIONS]
    unreduced = losses.MeanSquaredError(name="plain", reduction=None)
    refused("plain has reduction=None", lambda: objective_of(unreduced, [real], [PREDICTIONS]))
    refused("an output has several losses", lambda: objective_of(["mse", "mae"], [real], [PREDICTIONS]))
    both = objective_of("mse", pair, outputs)
    refused("'output_1' has a loss but no targets", lambda: part_sums(both, [real, None], outputs, [None, None], []))


@pytest.mark.parametrize("compiled", [False, True])
def test_outputs_without_a_loss_are_refused(compiled: bool) -> None:
    outputs, loss_terms = [PREDICTIONS, PREDICTIONS], LossTerms()
    none = compile_loss_of([None, None], None, [TARGETS["real"]] * 2, outputs) if compiled else None
    loss_terms.resolve(none, names_of(outputs))
    refused("no output has a loss", lambda: part_sums(loss_terms, [None, None], outputs, [None, None], []))


def test_nested_outputs_are_refused() -> None:
    inputs = keras.Input((3,))
    heads = [keras.layers.Identity(name=name)(inputs) for name in ("left", "right")]
    model = keras.Model(inputs, {"deep": heads, "flat": keras.layers.Identity(name="flat")(inputs)})
    real = TARGETS["real"]
    model.compile(loss={"deep": ["mse", "mse"], "flat": "mse"})
    model._compile_loss({"deep": [real, real], "flat": real}, {"deep": [PREDICTIONS, PREDICTIONS], "flat": PREDICTIONS})
    refused("nested", lambda: LossTerms().resolve(model._compile_loss, ["left", "right", "flat"]))


@pytest.mark.parametrize("order", [["left", "right"], ["right", "left"]])
def test_losses_of_a_dict_of_outputs_find_their_output(order: list[str]) -> None:
    inputs = keras.Input((3,))
    heads = {name: keras.layers.Identity(name=name)(inputs) for name in order}
    model = keras.Model(inputs, heads)
    y = {"left": TARGETS["real"], "right": TARGETS["one-hot"]}
    y_pred = dict.fromkeys(order, PREDICTIONS)
    model.compile(loss={"right": "mae", "left": "mse"}, loss_weights={"right": 0.5, "left": 3.0})
    expected = float(model._compile_loss(y, y_pred))
    loss_terms = LossTerms()
    loss_terms.resolve(model._compile_loss, order)
    parts = part_sums(loss_terms, [y[name] for name in order], [PREDICTIONS, PREDICTIONS], [None, None], [4])
    assert value(loss_terms, parts)[0] == pytest.approx(expected, rel=1e-6)
    left, right = losses.MeanSquaredError(), losses.MeanAbsoluteError()
    by_hand = 3 * left(y["left"], PREDICTIONS) + 0.5 * right(y["right"], PREDICTIONS)
    assert expected == pytest.approx(float(by_hand), rel=1e-6)


@pytest.mark.parametrize("cuts", [[], [3], [2, 7]])
def test_outputs_with_denominators_of_their_own_have_objectives_of_their_own(cuts: list[int]) -> None:
    kernel = tf.Variable(_random.normal(size=(3, 3)).astype("float32"))
    x, y = tf.constant(TARGETS["real"]), TARGETS["one-hot"]
    mask = tf.constant(np.arange(ROWS) % 3 != 0)

    def outputs() -> list[Any]:
        masked = x @ kernel
        masked._keras_mask = mask
        return [masked, x @ kernel * 2.0]

    def whole() -> Any:
        masked, other = outputs()
        weighed = losses.MeanSquaredError(reduction="mean_with_sample_weight")
        return losses.MeanSquaredError()(y, masked) + weighed(y, other, WEIGHTS)

    with tf.GradientTape() as tape:
        loss = whole()
    expected = tape.gradient(loss, kernel)
    given_losses = [losses.MeanSquaredError(), losses.MeanSquaredError(reduction="mean_with_sample_weight")]
    loss_terms = objective_of(given_losses, [y, y], outputs())
    with tf.GradientTape(persistent=True) as tape:
        parts = part_sums(loss_terms, [y, y], outputs(), [None, WEIGHTS], cuts)
        totals = [sum(p.objectives[k] for p in parts) for k in range(2)]
    counts = sum(p.counts for p in parts)
    found = sum(tape.gradient(total, kernel) / counts[k] for k, total in enumerate(totals))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert value(loss_terms, parts)[0] == pytest.approx(float(loss), rel=1e-5)
