"""What stands in the place of a method, what it goes past, and when it is too late to refuse it."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.training.keras_api.method_calls import as_method, begins, goes_through, within

X, Y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")


def test_calls_within_calls() -> None:
    begins()  # outside of one it says nothing
    assert not within("fit")
    with as_method("a", "fit") as outer:
        assert within("fit")
        assert goes_through("a", "fit")
        assert not goes_through("a", "evaluate")
        assert not goes_through("b", "fit")
        with as_method("a", "evaluate") as inner:
            begins()
            assert not goes_through("a", "fit")
        assert (outer.begun, inner.begun) == (False, True)
    assert not within("fit")


def build() -> Any:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def unbuilt() -> Any:
    return build()


def built() -> Any:
    model = build()
    model.build((None, 3))
    return model


class Drawn:
    """Whether a dataset was drawn from."""

    def __init__(self) -> None:
        self.count = 0

    def dataset(self) -> Any:
        def draw(*batch: Any) -> Any:
            self.count += 1
            return batch

        def add(*batch: Any) -> Any:
            found = tf.py_function(draw, batch, [part.dtype for part in batch])
            return tuple(tf.ensure_shape(part, other.shape) for part, other in zip(found, batch, strict=True))

        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).map(add)


@pytest.mark.parametrize("make", [built, unbuilt])
@pytest.mark.parametrize("call", [tfmb.fit, tfmb.evaluate, tfmb.predict], ids=lambda call: call.__name__)
def test_it_has_begun_before_anything_is_drawn(call: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first place that tells of it nothing was drawn, and at the end it is known."""
    drawn, counts = Drawn(), []
    for module in ("loop.run", "input.dataset_pipeline", "scoring", "inference", "input.inference_batches"):

        def seen() -> None:
            counts.append(drawn.count)
            begins()

        monkeypatch.setattr(f"tfmb.training.{module}.begins", seen)
    with as_method(None, call.__name__) as it:
        call(make(), drawn.dataset(), verbose=0)
    assert it.begun
    assert drawn.count
    assert counts[0] == 0


def test_what_is_refused_at_the_door_has_not_begun() -> None:
    for call in (tfmb.fit, tfmb.evaluate, tfmb.predict):
        with as_method(None, "fit") as it, pytest.raises(tfmb.errors.ConfigError):
            call(built(), iter([X]))
        assert not it.begun
