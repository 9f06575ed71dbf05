"""Stock losses, each with the targets and the last activation that it is made for, and metrics for these targets."""

from random import Random
from typing import Any

from .terms import Term, call, code

__all__ = ["LOSSES", "TARGETS", "Objective", "draw_loss", "draw_metrics"]

# What a loss needs: the kind of its targets (a key of TARGETS), the activation of the last layer, and arguments of
# which one is drawn each.
Objective = tuple[str, str | None, dict[str, list[Any]]]
_LOGITS: dict[str, list[Any]] = {"from_logits": [True]}
LOSSES: dict[str, list[Objective]] = {
    "MeanSquaredError": [("real", None, {}), ("whole", None, {})],
    "MeanAbsoluteError": [("real", None, {})],
    "MeanAbsolutePercentageError": [("positive", None, {})],
    "MeanSquaredLogarithmicError": [("positive", "softplus", {})],
    "CosineSimilarity": [("real", None, {"axis": [-1]})],
    "Huber": [("real", None, {"delta": [0.1, 1.0]})],
    "LogCosh": [("real", None, {})],
    "Hinge": [("signs", "tanh", {}), ("bits", "tanh", {})],
    "SquaredHinge": [("signs", "tanh", {})],
    "CategoricalHinge": [("one hot", "softmax", {})],
    "KLDivergence": [("shares", "softmax", {})],
    "Poisson": [("whole", "softplus", {})],
    "BinaryCrossentropy": [
        ("bits", "sigmoid", {"label_smoothing": [0.0, 0.1]}),
        ("bits", None, _LOGITS),
    ],
    "BinaryFocalCrossentropy": [
        ("bits", "sigmoid", {"apply_class_balancing": [False, True], "gamma": [2.0, 1.5]}),
        ("bits", None, _LOGITS),
    ],
    "CategoricalCrossentropy": [
        ("one hot", "softmax", {"label_smoothing": [0.0, 0.1]}),
        ("shares", None, _LOGITS),
    ],
    "CategoricalFocalCrossentropy": [("one hot", "softmax", {"alpha": [0.25, 0.5]})],
    "CategoricalGeneralizedCrossEntropy": [("classes", "softmax", {"q": [0.5, 0.8]})],
    "SparseCategoricalCrossentropy": [
        ("classes", "softmax", {}),
        ("classes", None, _LOGITS),
        ("classes", None, {"from_logits": [True], "ignore_class": [0]}),
    ],
    "CTC": [("letters", None, {})],
    "Dice": [("bits", "sigmoid", {"axis": [None, [1]]})],
    "Tversky": [("bits", "sigmoid", {"alpha": [0.5, 0.3]})],
    "Circle": [("classes", None, {"gamma": [2.0]})],
}
# Targets as code: `n` examples, the shape `s` of an example's outputs.
TARGETS: dict[str, str] = {
    "real": "random.normal(size=(n, *s))",
    "positive": "random.uniform(0.5, 3.0, (n, *s))",
    "whole": "random.poisson(2.0, (n, *s))",
    "signs": "random.choice([-1.0, 1.0], (n, *s))",
    "bits": "random.integers(0, 2, (n, *s))",
    "shares": "random.dirichlet(np.ones(s[-1]), (n, *s[:-1]))",
    "one hot": "np.eye(s[-1])[random.integers(0, s[-1], (n, *s[:-1]))]",
    "classes": "random.integers(0, s[-1], (n, *s[:-1]))",
    "letters": "random.integers(1, s[-1], (n, 2))",
}
_SHORT = {
    "MeanSquaredError": ["mse", code("keras.losses.mean_squared_error")],
    "MeanAbsoluteError": ["mae"],
    "Huber": ["huber"],
    "Hinge": ["hinge"],
    "KLDivergence": ["kl_divergence"],
    "Poisson": ["poisson"],
    "BinaryCrossentropy": ["binary_crossentropy"],
    "CategoricalCrossentropy": ["categorical_crossentropy"],
    "SparseCategoricalCrossentropy": [
        "sparse_categorical_crossentropy",
        code("keras.losses.sparse_categorical_crossentropy"),
    ],
}
_METRICS: dict[str, list[Any]] = {
    "real": [
        "mse",
        "mae",
        call("metrics.RootMeanSquaredError"),
        call("metrics.R2Score"),
        call("metrics.CosineSimilarity"),
        call("metrics.LogCoshError"),
        call("metrics.MeanMetricWrapper", code("keras.losses.huber"), name="wrapped"),
        code("keras.metrics.mean_absolute_error"),
        call("metrics.PearsonCorrelation"),
        call("metrics.ConcordanceCorrelation"),
    ],
    "positive": ["mape", "msle", call("metrics.MeanAbsolutePercentageError"), "mae"],
    "whole": ["mae", call("metrics.Poisson"), call("metrics.MeanSquaredError")],
    "signs": ["hinge", call("metrics.SquaredHinge"), call("metrics.Hinge")],
    "bits": [
        "accuracy",
        call("metrics.AUC", num_thresholds=20),
        call("metrics.AUC", num_thresholds=20, curve="PR", name="pr"),
        call("metrics.Precision"),
        call("metrics.Recall", thresholds=[0.3, 0.6]),
        call("metrics.BinaryAccuracy", threshold=0.4),
        call("metrics.BinaryIoU"),
        call("metrics.TruePositives"),
        call("metrics.FalseNegatives"),
        call("metrics.SensitivityAtSpecificity", 0.5),
        call("metrics.PrecisionAtRecall", 0.5),
        call("metrics.F1Score", threshold=0.5),
        call("metrics.BinaryCrossentropy"),
    ],
    "shares": [call("metrics.KLDivergence"), call("metrics.CategoricalCrossentropy")],
    "one hot": [
        "accuracy",
        call("metrics.TopKCategoricalAccuracy", 2),
        call("metrics.CategoricalAccuracy"),
        call("metrics.F1Score", average="macro"),
        call("metrics.OneHotMeanIoU", 3),
        call("metrics.AUC", num_thresholds=10, multi_label=True),
        call("metrics.CategoricalHinge"),
    ],
    "classes": [
        "accuracy",
        "acc",
        call("metrics.SparseTopKCategoricalAccuracy", 2),
        call("metrics.SparseCategoricalAccuracy"),
        call("metrics.MeanIoU", 3, sparse_y_pred=False),
        call("metrics.SparseCategoricalCrossentropy", from_logits=True),
    ],
    "letters": [],
}
_REDUCTIONS = ["sum", "mean_with_sample_weight", None, "none", "mean"]


def draw_loss(random: Random, name: str) -> tuple[Term, str, str | None]:
    """The loss of a name, the kind of its targets, and the activation of the last layer."""
    target, activation, choices = random.choice(LOSSES[name])
    short = random.random() < 0.1 and not choices and name in _SHORT
    if short:
        return random.choice(_SHORT[name]), target, activation
    given = {key: random.choice(values) for key, values in choices.items()}
    loss = call(f"losses.{name}", **given)
    if random.random() < 0.25:
        loss["with"]["reduction"] = random.choice(_REDUCTIONS)
    return loss, target, activation


def draw_metrics(random: Random, target: str, rank: int, precision: str) -> list[Term]:
    """Some metrics for targets of a kind, each once."""
    known = _METRICS[target]
    if precision == "float64":  # which TensorFlow's InTopK does not take
        known = [each for each in known if "TopK" not in str(each)]
    if rank > 1:  # an output for each step of a sequence: matrices of confusion and scores by column want vectors
        known = [each for each in known if isinstance(each, str) or "Mean" in str(each) or "Accuracy" in str(each)]
    return random.sample(known, min(len(known), random.choice([0, 1, 1, 2])))
