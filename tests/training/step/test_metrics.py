"""Metrics as sums: Keras's value on all the data, from the states of its parts."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.keras_api.compile_args import results
from tfmb.training.step.metrics import Metrics

m = keras.metrics
ROWS = 23
NAMES = ["left", "right"]
_random = np.random.default_rng(0)
CLASSES = _random.integers(0, 3, ROWS)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
SHARES = tf.nn.softmax(2 * _random.normal(size=(ROWS, 3)).astype("float32"))
LABELS = (_random.random(ROWS) < 0.4).astype("float32")[:, np.newaxis]
CHANCES = tf.sigmoid(_random.normal(size=(ROWS, 1)).astype("float32") + LABELS)
WEIGHTS = tf.constant(np.linspace(0.0, 2.0, ROWS).astype("float32"))


def own_mean(y_true: Any, y_pred: Any) -> Any:
    return tf.reduce_max(tf.abs(y_true - y_pred), -1)


def one_hot_metrics() -> list[Any]:
    return [
        m.CategoricalAccuracy(),
        m.TopKCategoricalAccuracy(2),
        m.CategoricalCrossentropy(),
        m.MeanSquaredError(),
        m.RootMeanSquaredError(),
        m.CosineSimilarity(),
        m.KLDivergence(),
        m.AUC(multi_label=True),
        m.F1Score(average="macro"),
        m.FBetaScore(beta=0.5),
        m.R2Score(),
        m.MeanMetricWrapper(own_mean, name="own"),
    ]


def binary_metrics() -> list[Any]:
    return [
        m.BinaryAccuracy(),
        m.AUC(num_thresholds=50),
        m.AUC(curve="PR", from_logits=False),
        m.Precision(),
        m.Recall(thresholds=[0.3, 0.7]),
        m.TruePositives(),
        m.TrueNegatives(),
        m.FalsePositives(),
        m.FalseNegatives(),
        m.SensitivityAtSpecificity(0.5),
        m.SpecificityAtSensitivity(0.5),
        m.PrecisionAtRecall(0.5),
        m.RecallAtPrecision(0.5),
        m.Hinge(),
    ]


def whole(metric: Any, y: Any, y_pred: Any, weight: Any) -> Any:
    metric.update_state(y, y_pred, weight)
    return np.asarray(metric.result())


def compiled(plain: Any, weighted: Any, y: list[Any], y_pred: list[Any]) -> Any:
    """A Keras model whose metrics have seen the outputs once, and nothing since."""
    inputs = keras.Input((3,))
    heads = [keras.layers.Identity(name=name)(inputs) for name in NAMES[: len(y)]]
    model = keras.Model(inputs, heads if len(heads) > 1 else heads[0])
    model.compile(loss="mse", metrics=plain, weighted_metrics=weighted)
    model._compile_metrics.update_state(*(list(each) if len(heads) > 1 else each[0] for each in (y, y_pred)))
    model.reset_metrics()
    return model


def metrics_of(model: Any) -> Metrics:
    metrics = Metrics()
    metrics.resolve(model._compile_metrics, NAMES[: len(model.outputs)])
    return metrics


def merged_of(model: Any, y: list[Any], y_pred: list[Any], weight: Any, cuts: list[int]) -> dict[str, Any]:
    """Keras's own results in the state that the parts come to, without the loss."""
    metrics, total = metrics_of(model), 0.0
    for a, b in itertools.pairwise([0, *sorted(cuts), ROWS]):
        ys, outputs, weights = (
            [None if each is None else each[a:b] for each in given] for given in (y, y_pred, [weight] * len(y))
        )
        total = total + metrics.sums(ys, outputs, weights, tf.float64, tf.constant((b - a) / ROWS)).numpy()
    with keras.StatelessScope(state_mapping=metrics.values(np.asarray(total))):
        found = results(model)
    return {key: value for key, value in found.items() if key != "loss"}


def merged(plain: Any, weighted: Any, y: Any, y_pred: Any, weight: Any, cuts: list[int]) -> dict[str, Any]:
    return merged_of(compiled(plain, weighted, [y], [y_pred]), [y], [y_pred], weight, cuts)


@pytest.mark.parametrize(
    ("make", "y", "y_pred"), [(one_hot_metrics, ONE_HOT, SHARES), (binary_metrics, LABELS, CHANCES)],
    ids=["one-hot", "binary"],
)  # fmt: skip
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
def test_states_of_parts_merge_into_kerass_value(make: Any, y: Any, y_pred: Any, weight: Any) -> None:
    given_metrics = make()
    values = merged(None, given_metrics, y, y_pred, weight, [7, 8])
    assert len(values) == len(given_metrics)
    for (key, found), reference in zip(values.items(), make(), strict=True):
        expected = whole(reference, y, y_pred, weight)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=key)
        assert isinstance(found, float) == (expected.ndim == 0)
    # Keras's own objects are read, not moved.
    assert all(not np.any(v.numpy()) for metric in given_metrics for v in metric.variables)


def test_confusion_matrices_merge() -> None:
    def make() -> list[Any]:  # Keras takes no float weights for these
        return [m.OneHotIoU(3, target_class_ids=[1, 2], name="iou"), m.OneHotMeanIoU(3, name="mean")]

    found = merged(make(), None, ONE_HOT, SHARES, None, [7, 8])
    for reference in make():
        assert found[reference.name] == pytest.approx(float(whole(reference, ONE_HOT, SHARES, None)), rel=1e-6)


@pytest.mark.compile
@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=4))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    plain, weighted = ["accuracy", m.AUC(name="auc"), "mse"], [m.Precision(name="precision")]
    expected = {
        "accuracy": whole(m.BinaryAccuracy(), LABELS, CHANCES, None),
        "auc": whole(m.AUC(), LABELS, CHANCES, None),
        "mse": whole(m.MeanSquaredError(), LABELS, CHANCES, None),
        "precision": whole(m.Precision(), LABELS, CHANCES, WEIGHTS),
    }
    found = merged(plain, weighted, LABELS, CHANCES, WEIGHTS, cuts)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(float(value), rel=1e-5), key


@pytest.mark.parametrize(
    ("y", "y_pred", "reference"),
    [
        (LABELS, CHANCES, m.BinaryAccuracy),
        (CLASSES, SHARES, m.SparseCategoricalAccuracy),
        (CLASSES[:, np.newaxis], SHARES, m.SparseCategoricalAccuracy),
        (ONE_HOT, SHARES, m.CategoricalAccuracy),
    ],
    ids=["binary", "sparse", "column", "one-hot"],
)
def test_accuracy_by_name_is_the_one_that_fits(y: Any, y_pred: Any, reference: Any) -> None:
    found = merged(["accuracy", "acc"], None, y, y_pred, None, [5])
    expected = float(whole(reference(), y, y_pred, None))
    assert found == pytest.approx({"accuracy": expected, "acc": expected})
    assert 0 < expected < 1


def test_plain_metrics_ignore_weights() -> None:
    found = merged(["mse"], ["mse"], ONE_HOT, SHARES, WEIGHTS, [5])
    assert found["mse"] == pytest.approx(float(whole(m.MeanSquaredError(), ONE_HOT, SHARES, None)), rel=1e-6)
    weighted = float(whole(m.MeanSquaredError(), ONE_HOT, SHARES, WEIGHTS))
    assert found["weighted_mse"] == pytest.approx(weighted, rel=1e-6)
    assert found["mse"] != pytest.approx(weighted, rel=1e-3)


@pytest.mark.parametrize("cuts", [[], [7, 8]])
def test_each_output_has_its_own_metrics_under_kerass_names(cuts: list[int]) -> None:
    plain = {"right": m.MeanAbsoluteError(name="error"), "left": ["mse", m.Hinge(name="mse")]}
    weighted = [["mse"], None]
    y, y_pred = [ONE_HOT, ONE_HOT[::-1].copy()], [SHARES, SHARES]
    model = compiled(plain, weighted, y, y_pred)
    found = merged_of(model, y, y_pred, WEIGHTS, cuts)
    model._compile_metrics.update_state(y, y_pred, [WEIGHTS, WEIGHTS])
    expected = {key: float(value) for key, value in model._compile_metrics.result().items()}
    assert found == pytest.approx(expected, rel=1e-5)
    assert set(expected) == {"left_mse", "left_mse_1", "left_weighted_mse", "right_error"}
    assert expected["right_error"] == pytest.approx(float(whole(m.MeanAbsoluteError(), y[1], SHARES, None)), rel=1e-5)


def test_outputs_in_another_order_than_kerass_keep_their_metrics() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {name: keras.layers.Identity(name=name)(inputs) for name in ("right", "left")})
    model.compile(loss="mse", metrics={"left": ["mse"], "right": ["mae"]})
    y, y_pred = {"right": ONE_HOT[::-1].copy(), "left": ONE_HOT}, {"right": SHARES, "left": SHARES}
    model._compile_metrics.update_state(y, y_pred)
    expected = {key: float(value) for key, value in model._compile_metrics.result().items()}
    metrics = Metrics()
    metrics.resolve(model._compile_metrics, ["right", "left"])
    sums = metrics.sums([y["right"], y["left"]], [SHARES, SHARES], [None, None], tf.float64)
    with keras.StatelessScope(state_mapping=metrics.values(sums.numpy())):
        found = {key: float(value) for key, value in model._compile_metrics.result().items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert expected["left_mse"] == pytest.approx(float(whole(m.MeanSquaredError(), ONE_HOT, SHARES, None)), rel=1e-6)


def test_no_metrics_is_no_sums() -> None:
    metrics = Metrics()
    metrics.resolve(None, ["output"])
    assert metrics.sums([ONE_HOT], [SHARES], [None], tf.float32).shape == (0,)
    assert metrics.values(np.zeros(0)) == []
    assert metrics.variables == []


@pytest.mark.parametrize("cuts", [[], [5], [0, 7, 8]])
def test_one_number_for_a_batch_counts_by_its_share_of_the_rows(cuts: list[int]) -> None:
    def mean(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.square(y_true - y_pred))

    expected = float(whole(m.MeanSquaredError(), ONE_HOT, SHARES, None))
    found = merged([mean, keras.losses.MeanSquaredError(name="squares")], None, ONE_HOT, SHARES, None, cuts)
    assert found == pytest.approx({"mean": expected, "squares": expected}, rel=1e-6)


class _Largest(keras.metrics.Metric):
    """The largest output so far: states of parts do not add up."""

    def __init__(self) -> None:
        super().__init__(name="largest")
        self.value = self.add_weight(name="value", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.value.assign(tf.maximum(self.value, tf.reduce_max(y_pred)))

    def result(self) -> Any:
        return self.value


class _LargestMean(keras.metrics.MeanMetricWrapper):
    """Looks additive by its base, and is not."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign(tf.maximum(self.total, tf.reduce_max(y_pred)))


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        (_Largest(), "'largest' (_Largest)"),
        (_LargestMean(own_mean, name="greatest"), "'greatest' (_LargestMean)"),
    ],
    ids=["state", "override"],
)
def test_what_does_not_add_up_is_refused_by_name(identifier: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        metrics_of(compiled([identifier], None, [ONE_HOT], [SHARES]))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class _MeanOfMax(keras.metrics.Mean):
    """What the refusal's own advice leads to: a subclass of Mean that sums its values with Mean's."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(own_mean(y_true, y_pred), sample_weight)


def test_subclass_of_mean_is_taken_as_the_refusal_advises() -> None:
    found = merged([_MeanOfMax(name="own")], None, ONE_HOT, SHARES, None, [5])
    assert found["own"] == pytest.approx(float(tf.reduce_mean(own_mean(ONE_HOT, SHARES))), rel=1e-6)
