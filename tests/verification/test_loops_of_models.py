"""`tfmb.verify` on models of all kinds: a right loop passes, and one that forgets the tail does not."""

from collections.abc import Callable
from typing import Any

import pytest
import subjects
from cases import here

import tfmb
from tfmb.backend import keras
from tfmb.data import Splits

pytestmark = pytest.mark.compile


def our_loop(drops_tail: bool) -> Callable[..., Any]:
    def train(
        build_model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, micro_batches: int
    ) -> Any:
        rule = {"sgd": tfmb.optimizers.SGD, "adam": tfmb.optimizers.Adam}[optimizer["class_name"]]
        if drops_tail:
            whole = len(keras.tree.flatten(x)[0]) // batch_size * batch_size
            x, y = (keras.tree.map_structure(lambda array: array[:whole], part) for part in (x, y))
        given: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "shuffle": False, "verbose": 0}
        given |= {"micro_batch_size": -(-batch_size // micro_batches)} if micro_batches > 1 else {}
        return tfmb.fit(build_model, x, y, optimizer=rule(**optimizer["config"]), **given).model

    return train


def problem(name: str, digits: Splits) -> tuple[Callable[[], Any], Any]:
    if name in tfmb.models.MODELS:
        shape = (28, 28, 1)

        def build() -> Any:
            model = tfmb.models.with_preprocessing(
                tfmb.models.MODELS[name](shape, 10, dropout=0.2), shape, digits.normalization
            )
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=keras.config.floatx())
            model.compile(loss=loss)
            return model

        return build, (digits.train.examples[:40], digits.train.labels[:40])
    return getattr(subjects, name), getattr(subjects, f"{name}_data")()


@pytest.mark.parametrize("name", here(subjects.NAMES, ["mlp", "two_outputs"]))
def test_a_right_loop_passes_on_each_model(name: str, digits: Splits) -> None:
    report = tfmb.verify(our_loop(drops_tail=False), *problem(name, digits), epochs=1)
    assert report.passed, report
    assert "float64, within 1e-11" in report.check("last batch").detail
    parts = report.check("micro-batches")
    assert parts.status == ("not applicable" if name == "resnet" else "passed"), parts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "two_inputs", "two_outputs"])
def test_a_loop_without_the_tail_fails_by_name(name: str, digits: Splits) -> None:
    report = tfmb.verify(our_loop(drops_tail=True), *problem(name, digits), epochs=1)
    assert report.check("last batch").diagnosis == ("dropped tail",)
    assert report.check("mean gradient").status == "passed"


@pytest.mark.slow
def test_keras_on_an_embedding_is_failed() -> None:
    # Its Adam counts repeated rows of a sparse gradient apart; plain gradient descent does not square them.
    def train(model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.get(optimizer), loss)
        model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)

    report = tfmb.verify(train, subjects.tabular, subjects.tabular_data())
    assert report.check("mean gradient").status == "passed"
    assert report.check("bias correction").status == "failed"
