"""The logs of a model's own step: batch hooks see what it returned, the History the means of the metrics."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(16, 3)).astype("float32"), RANDOM.normal(size=(16, 1)).astype("float32")


class ReturnsItsLoss(keras.Model):
    """Its step returns the loss under the name of Keras's mean, which it leaves at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {**self.compute_metrics(x, y, y_pred), "loss": loss}


@pytest.mark.filterwarnings("ignore:LambdaCallback must see every batch")
@pytest.mark.parametrize("executed", [1, 2])
def test_batch_hooks_see_what_the_step_returned_and_the_history_the_means(executed: int) -> None:
    seen = []
    for fit in (keras.Model.fit, tfmb.fit):
        keras.utils.set_random_seed(1)
        model = ReturnsItsLoss()
        logs_of: list[dict[str, Any]] = []
        model.compile("sgd", "mse", metrics=["mae"], steps_per_execution=executed, jit_compile=False)
        spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, to=logs_of: to.append(dict(logs)))
        history = fit(model, X, Y, batch_size=len(X) // 4, epochs=2, shuffle=False, verbose=0, callbacks=[spy])
        seen.append([*({k: float(v) for k, v in logs.items()} for logs in logs_of), history.history])
    theirs, ours = seen
    assert all(logs["loss"] > 0 for logs in theirs[:-1])
    for expected, found in zip(theirs, ours, strict=True):
        assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
