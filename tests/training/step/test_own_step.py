"""A model's own `train_step` trains as with `fit`, is killed and resumed to the bit, and refuses what cannot hold."""

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_runs import EXAMPLES

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DivergenceError, PreemptedError
from tfmb.training.session import StopSignals

sys.path.insert(0, str(EXAMPLES))
import own_step_distillation
import own_step_gan
import own_step_vae

layers, ops = keras.layers, keras.ops
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(24, 4)).astype("float32"), _random.normal(size=(24, 1)).astype("float32")
DIGITS, LABELS = _random.uniform(size=(40, 64)).astype("float32"), _random.integers(0, 10, 40)
FEW: dict[str, Any] = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}


class Plain(keras.Model):
    """What Keras's own step does, written out."""

    def train_step(self, data: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def plain(kind: Any = Plain, rate: float = 0.2, **compiled: Any) -> Any:
    inputs = keras.Input((4,))
    hidden = layers.Dropout(rate, seed=3)(layers.BatchNormalization()(layers.Dense(5, "tanh")(inputs)))
    model = kind(inputs, layers.Dense(1)(hidden))
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "metrics": ["mae"], **compiled})
    return model


def distiller() -> Any:
    network = own_step_distillation.network
    return own_step_distillation.compiled(own_step_distillation.Distiller(network(4), network(8)))


BUILDS = {
    "plain": (plain, (X, Y)),
    "gan": (own_step_gan.build, (DIGITS,)),
    "vae": (own_step_vae.build, (DIGITS,)),
    "distillation": (distiller, (DIGITS, LABELS)),
}


def state_of(model: Any) -> list[np.ndarray]:
    """All variables of a model and of its optimizers."""
    optimizers = {id(o): o for o in vars(model).values() if isinstance(o, keras.optimizers.Optimizer)}
    variables = [*model.variables, *(v for optimizer in optimizers.values() for v in optimizer.variables)]
    return [np.asarray(v) for v in variables]


def trained(build: Any, *data: Any, by: str = "tfmb", **given: Any) -> tuple[Any, Any]:
    keras.utils.set_random_seed(0)
    model = build()
    arguments = {**FEW, **given}
    if isinstance(data[0], tf.data.Dataset):
        del arguments["batch_size"]
    if by == "keras":
        return model, model.fit(*data, **arguments)
    return model, tfmb.fit(model, *data, **{"jit_compile": False, "seed": 0, **arguments})


def assert_as_fit(build: Any, *data: Any, atol: float = 1e-6, **given: Any) -> Any:
    theirs, right = trained(build, *data, by="keras", **given)
    ours, found = trained(build, *data, **given)
    assert sorted(found.history) == sorted(right.history)
    for key, values in right.history.items():
        np.testing.assert_allclose(found.history[key], [np.asarray(v) for v in values], rtol=1e-6, atol=atol)
    for a, b in zip(state_of(ours), state_of(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol)
    return ours


@pytest.mark.parametrize("name", ["plain", "gan", pytest.param("vae", marks=pytest.mark.compile), "distillation"])
def test_it_trains_as_with_fit(name: str) -> None:
    build, data = BUILDS[name]
    assert_as_fit(build, *data)


def test_validation_uses_the_models_test_step() -> None:
    assert_as_fit(own_step_vae.build, DIGITS, validation_data=(DIGITS[:16],))


def test_validation_of_keras_own_step_shares_the_metrics() -> None:
    assert_as_fit(plain, X, Y, validation_data=(X[:9], Y[:9]))


def test_sample_and_class_weights_reach_the_step() -> None:
    assert_as_fit(plain, X, Y, sample_weight=np.linspace(0, 1, 24).astype("float32"))


class Triplets(keras.Model):
    """Takes elements apart itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = layers.Dense(3)
        self.mean = keras.metrics.Mean("loss")

    @property
    def metrics(self) -> Any:
        return [self.mean]

    def call(self, x: Any) -> Any:
        return self.embed(x)

    def loss_of(self, data: Any) -> Any:
        anchor, near, far, scale = data
        a, n, f = self(anchor), self(near["x"]), self(far)
        return ops.mean(ops.relu(ops.sum((a - n) ** 2, -1) - ops.sum((a - f) ** 2, -1) + scale))

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.loss_of(data)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}

    def test_step(self, data: Any) -> Any:
        self.mean.update_state(self.loss_of(data))
        return {"loss": self.mean.result()}


def triplets() -> Any:
    model = Triplets()
    model.compile(keras.optimizers.SGD(0.1))
    return model


def test_elements_of_any_structure_reach_the_step() -> None:
    scale = np.ones(24, "float32")
    data = tf.data.Dataset.from_tensor_slices((X, {"x": X + 0.1}, X[::-1].copy(), scale)).batch(8)
    assert_as_fit(triplets, data, validation_data=data)


class ShowsItsData(keras.Model):
    """Notes the structure of what its step is given."""

    def train_step(self, data: Any) -> Any:
        self.seen.append(type(data).__name__)
        return {"loss": ops.sum(keras.tree.flatten(data)[0]) * 0.0}


@pytest.mark.parametrize("elements", [(X,), X, {"a": X, "b": Y}, (X, Y), (X, (Y, Y))])
def test_a_step_gets_the_structure_that_keras_gives_it(elements: Any) -> None:
    kinds: list[list[str]] = []
    for by in ("keras", "tfmb"):
        seen: list[str] = []

        def build(seen: list[str] = seen) -> Any:
            inputs = keras.Input((4,))
            model = ShowsItsData(inputs, inputs)
            object.__setattr__(model, "seen", seen)
            model.compile("sgd")
            return model

        trained(build, tf.data.Dataset.from_tensor_slices(elements).batch(8), by=by, epochs=1)
        kinds.append(seen)
    assert set(kinds[0]) == set(kinds[1])


@pytest.mark.compile
@pytest.mark.parametrize("name", [pytest.param("gan", marks=pytest.mark.sample), "vae", "distillation"])
def test_a_run_that_is_stopped_goes_on_to_the_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, data = BUILDS[name]
    saved: dict[str, Any] = {"checkpoint_every": 2, "shuffle": True}
    whole, expected = trained(build, *data, run_dir=tmp_path / "whole", **saved)
    asked = iter([None, None, None, "SIGTERM"])
    monkeypatch.setattr(StopSignals, "reason", lambda self: next(asked, None))
    with pytest.raises(PreemptedError):
        trained(build, *data, run_dir=tmp_path / "cut", **saved)
    monkeypatch.undo()
    resumed, found = trained(build, *data, run_dir=tmp_path / "cut", resume=True, **saved)
    assert found.history == expected.history
    for a, b in zip(state_of(resumed), state_of(whole), strict=True):
        np.testing.assert_array_equal(a, b)


class Counts(Plain):
    """Has state that no list of Keras's knows."""

    def __init__(self, *arguments: Any, counters: int = 1, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.counters = [tf.Variable(0, trainable=False) for _ in range(counters)]

    def train_step(self, data: Any) -> Any:
        for counter in self.counters:
            counter.assign_add(1)
        return super().train_step(data)


def test_a_step_that_touches_other_variables_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its optimizers and seeds would begin anew, in silence."""
    asked = iter([None, None, "SIGTERM"])
    monkeypatch.setattr(StopSignals, "reason", lambda self: next(asked, None))
    with pytest.raises(PreemptedError):
        trained(lambda: plain(Counts), X, Y, run_dir=tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="its tensors are not those of this model and optimizer"):
        trained(lambda: plain(functools.partial(Counts, counters=2)), X, Y, run_dir=tmp_path / "run", resume=True)


def test_a_function_may_build_it() -> None:
    history = tfmb.fit(own_step_gan.build, DIGITS, seed=0, **FEW)
    again = tfmb.fit(own_step_gan.build, DIGITS, seed=0, **FEW)
    assert sorted(history.history) == ["d_loss", "g_loss"]
    np.testing.assert_allclose(again.history["d_loss"], history.history["d_loss"], rtol=1e-5)


def test_callbacks_act_on_the_models_optimizer() -> None:
    rates: list[float] = []

    class Sees(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    assert_as_fit(plain, X, Y, callbacks=[halve, Sees()])
    assert rates == pytest.approx(2 * [0.005, 0.0025, 0.00125])


def test_a_second_fit_goes_on_with_the_optimizers() -> None:
    def twice(by: str) -> list[np.ndarray]:
        model, _ = trained(own_step_gan.build, DIGITS, by=by)
        fit = model.fit if by == "keras" else lambda *data, **given: tfmb.fit(model, *data, jit_compile=False, **given)
        fit(DIGITS, **FEW)
        return state_of(model)

    for a, b in zip(twice("tfmb"), twice("keras"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class Diverges(Plain):
    """Multiplies its loss until it is infinite."""

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        return {**logs, "own_loss": logs["loss"] * 3e38 * 3e38}


def test_a_loss_that_is_not_finite_ends_the_training_after_its_update() -> None:
    with pytest.raises(DivergenceError, match=r"update 1 .*Diverges\.train_step has made the update"):
        trained(lambda: plain(Diverges), X, Y)


REFUSED: dict[str, dict[str, Any]] = {
    "virtual_replicas": {"virtual_replicas": 2},
    "micro_batch_size": {"micro_batch_size": 4},
    "noise_scale": {"measure_noise_scale": True},
    "on_divergence='skip'": {"on_divergence": "skip"},
    "pad_batches": {"pad_batches": True},
    "optimizer": {"optimizer": "adam"},
    "loss": {"loss": "mse"},
    "metrics": {"metrics": ["mae"]},
}


@pytest.mark.parametrize("argument", REFUSED)
def test_what_cannot_hold_is_refused_by_name(argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"{argument} cannot be given with Plain\.train_step"):
        trained(plain, X, Y, **REFUSED[argument])


def test_a_model_that_is_not_compiled_is_refused() -> None:
    inputs = keras.Input((4,))
    with pytest.raises(ConfigError, match="is not compiled"):
        tfmb.fit(Plain(inputs, layers.Dense(1)(inputs)), X, Y, verbose=0)


class Random(Plain):
    """Draws from a generator that no variable holds, and counts in Python."""

    def train_step(self, data: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        x, y = data
        return super().train_step((x + tf.random.normal(tf.shape(x)), y))


def test_what_a_checkpoint_cannot_hold_is_told(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match=r"uses tf\.random \(use keras\.random with a SeedGenerator\)"),
        pytest.warns(UserWarning, match=r"Random\.train_step changes calls in Python"),
    ):
        trained(lambda: plain(Random), X, Y, run_dir=tmp_path / "run")


def test_logs_that_are_no_dict_are_refused() -> None:
    class Wrong(keras.Model):
        def train_step(self, data: Any) -> Any:
            return [1.0]

    with pytest.raises(ConfigError, match="a step of Wrong returns a list: let it return a dict of logs"):
        trained(lambda: plain(Wrong), X, Y)


class Looks(Plain):
    """Can only run in Python."""

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        return {**logs, "twice": 2 * float(logs["loss"].numpy())}


@pytest.mark.parametrize("kind", [Looks, keras.Model])
def test_a_model_that_runs_eagerly_does(kind: Any) -> None:
    with pytest.warns(UserWarning, match="run_eagerly=True: each step runs in Python"):
        ours, found = trained(lambda: plain(kind, run_eagerly=True), X, Y, validation_data=(X[:9], Y[:9]), epochs=2)
    theirs, right = trained(
        lambda: plain(kind, run_eagerly=True), X, Y, by="keras", validation_data=(X[:9], Y[:9]), epochs=2
    )
    assert sorted(found.history) == sorted(right.history)
    for key, values in right.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=1e-6)
    for a, b in zip(state_of(ours), state_of(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_a_model_that_runs_eagerly_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run_dir cannot be given with a model that runs eagerly"):
        trained(lambda: plain(keras.Model, run_eagerly=True), X, Y, run_dir=tmp_path / "run")


@pytest.mark.compile
@pytest.mark.parametrize("how", ["step", "call", True])
def test_xla_compiles_whole_steps(how: Any) -> None:
    _, found = trained(lambda: plain(rate=0.0), X, Y, jit_compile=how)  # XLA draws other masks
    _, right = trained(lambda: plain(rate=0.0), X, Y)
    np.testing.assert_allclose(found.history["loss"], right.history["loss"], rtol=1e-5)


@pytest.mark.parametrize("how", ["update", "gradients"])
def test_xla_compiles_no_part_of_a_step(how: str) -> None:
    with pytest.raises(ConfigError, match="is compiled whole or not at all"):
        trained(plain, X, Y, jit_compile=how)


def test_on_two_devices_it_means_what_it_means_in_keras(two_replicas: Any) -> None:
    strategy = two_replicas

    def build() -> Any:
        with strategy.scope():
            inputs = keras.Input((4,))
            model = Plain(inputs, layers.Dense(1)(layers.Dense(5, "tanh")(inputs)))
            model.compile(keras.optimizers.SGD(0.1), loss=keras.losses.MeanSquaredError(), metrics=["mae"])
        return model

    with pytest.warns(UserWarning, match=r"Plain\.train_step runs on 2 devices as in Keras"):
        ours, found = trained(build, X, Y)
    theirs, right = trained(build, X, Y, by="keras")
    for key, values in right.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="trains on several devices where its model was built"):
        tfmb.fit(plain(), X, Y, devices=2, verbose=0)


class WantsRows(keras.Model):
    """Its step works where the number of rows is known when it is traced, and as a float at that."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        rows = tf.shape(x, out_type=tf.float32)[0]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(self(x, training=True) - y)) / rows
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def test_a_known_number_of_rows_is_known_to_the_step() -> None:
    def trained(fit: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = WantsRows()
        model.compile("sgd", jit_compile=False)
        x = np.linspace(0, 1, 24).reshape(8, 3).astype("float32")
        data = tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(4, drop_remainder=True)
        return fit(model, data, epochs=2, verbose=0, shuffle=False).history["loss"]

    np.testing.assert_allclose(trained(tfmb.fit), trained(keras.Model.fit), rtol=1e-6)
