"""A shuffle with a seed gives each iterator of a dataset another order: we make as many as Keras does, when it does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from stopped_runs import StopAfter

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import PreemptedError

pytestmark = [
    pytest.mark.usefixtures("fresh_keras"),
    pytest.mark.filterwarnings("ignore:.*(ran out of data|data ran out|.shuffle=True. was passed)"),
]

X = np.random.default_rng(0).normal(size=(22, 3))
Y = X.sum(1, keepdims=True)
# The dataset, steps_per_epoch, validation_steps (and steps of evaluate and predict). It has 6 batches.
CASES = [
    ("known", None, None),
    ("known", 3, 2),
    ("known", 6, None),
    ("known", 8, 6),
    ("unknown", None, None),
    ("unknown", 8, 2),
    ("repeated", 4, 3),
]


def dataset(kind: str) -> Any:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(22, seed=1)
    if kind == "unknown":
        data = data.filter(lambda x, y: tf.reduce_all(x > -100.0))
    return (data.repeat() if kind == "repeated" else data).batch(4)


def calls(kind: str, steps_per_epoch: int | None, steps: int | None, fit: Any, evaluate: Any, predict: Any) -> Any:
    """Two fits, an evaluation and a prediction, all of one dataset."""
    keras.utils.set_random_seed(10)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    data, given = dataset(kind), {"steps_per_epoch": steps_per_epoch, "verbose": 0}
    first = fit(model, data, epochs=3, validation_data=data, validation_steps=steps, **given).history
    scored = evaluate(model, data, steps=steps, verbose=0)
    predicted = predict(model, data, steps=steps, verbose=0)[:, 0]
    second = fit(model, data, epochs=2, **given).history
    # tf.data may read a batch ahead by itself: three of six keep it from the next pass, which has another order.
    third = fit(model, data.repeat(), epochs=1, steps_per_epoch=3, verbose=0).history
    fourth = fit(model, data, epochs=1, **given).history
    histories = [first["loss"], first["val_loss"], predicted, second["loss"], third["loss"], fourth["loss"]]
    return np.concatenate([[scored], *histories])


@pytest.mark.parametrize(("kind", "steps_per_epoch", "steps"), here(CASES, CASES[:2], several=True))
def test_batches_come_in_keras_order(kind: str, steps_per_epoch: int | None, steps: int | None) -> None:
    model = keras.Model
    expected = calls(kind, steps_per_epoch, steps, model.fit, model.evaluate, model.predict)
    ours = calls(kind, steps_per_epoch, steps, tfmb.fit, tfmb.evaluate, tfmb.predict)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def unbuilt(fit: Any) -> Any:
    keras.utils.set_random_seed(10)
    model = keras.Sequential([keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return fit(model, dataset("known"), epochs=2, verbose=0).history["loss"]


def test_a_model_is_built_without_drawing_a_batch() -> None:
    np.testing.assert_allclose(unbuilt(tfmb.fit), unbuilt(keras.Model.fit), rtol=1e-5)
    keras.utils.set_random_seed(10)
    data, before = dataset("known"), dataset("known")
    model = keras.Sequential([keras.layers.Dense(1)])
    predicted = tfmb.predict(model, data, verbose=0)
    rows = np.concatenate([x for x, _ in before])
    np.testing.assert_allclose(predicted, rows @ model.weights[0].numpy() + model.weights[1].numpy(), rtol=1e-5)


class Drawn(keras.utils.PyDataset):
    """Batches that NumPy's generator makes up."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> Any:
        return np.random.normal(size=(4, 3)), np.random.normal(size=(4, 1))


@pytest.mark.filterwarnings("ignore:.*PyDataset. class should call")
def test_validation_data_is_looked_at_after_the_first_epoch() -> None:
    def trained(fit: Any) -> Any:
        keras.utils.set_random_seed(10)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
        history = fit(model, Drawn(), epochs=2, shuffle=False, validation_data=Drawn(), verbose=0).history
        return [*history["loss"], *history["val_loss"], np.random.normal()]

    np.testing.assert_allclose(trained(tfmb.fit), trained(keras.Model.fit), rtol=1e-5)


@pytest.mark.parametrize("initial_epoch", [0, 1])
def test_a_run_goes_on_where_validation_reads_the_same_dataset(
    initial_epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopAfter(monkeypatch)

    def trained(run: str, resume: bool = False) -> Any:
        keras.utils.set_random_seed(10)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
        options = tf.data.Options()
        options.deterministic = True
        data = dataset("known").with_options(options)
        given = {"epochs": 4, "initial_epoch": initial_epoch, "validation_data": data, "verbose": 0}
        return tfmb.fit(model, data, **given, run_dir=tmp_path / run, checkpoint_every=1, resume=resume).history

    whole = trained("whole")
    stop.batches = 15
    with pytest.raises(PreemptedError):
        trained("stopped")
    stop.batches = None
    assert trained("stopped", resume=True) == whole
