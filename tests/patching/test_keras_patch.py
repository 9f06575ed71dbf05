"""`tfmb.patch_keras`: programs as they stand, beside the same programs without it."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from stopped_runs import StopAfter

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DivergenceError, PreemptedError
from tfmb.seeds import derive

pytestmark = [
    pytest.mark.usefixtures("fresh_keras"),
    pytest.mark.filterwarnings("ignore:.*(shuffle=True. was passed|.PyDataset. class should call)"),
]

layers = keras.layers
X = np.random.default_rng(0).normal(size=(26, 6))
Y = (X.sum(1) > 0).astype("int64")
THEIRS = {name: getattr(keras.Model, name) for name in ("fit", "evaluate", "predict")}


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    assert all(getattr(keras.Model, name) is method for name, method in THEIRS.items())
    assert not set(THEIRS) & set(keras.Model.__dict__)


def build(kind: Any = keras.Sequential, dropout: bool = False, **compiled: Any) -> Any:
    drops = [layers.Dropout(0.2)] if dropout else []
    model = kind([keras.Input((6,)), layers.Dense(8, "tanh"), *drops, layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": "adam", "loss": loss, "metrics": ["accuracy"], **compiled})
    return model


def program(**more: Any) -> list[Any]:
    """Two trainings of a model and one of another, and what they come to."""
    keras.utils.set_random_seed(0)
    found: list[Any] = []
    model: Any = None
    given = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0, "validation_split": 0.2, **more}
    for number in range(3):
        model = model if number == 1 else build(dropout=True)
        history = model.fit(X, Y, **given)
        found += [history.history, model.evaluate(X, Y, verbose=0, return_dict=True), model.predict(X, verbose=0)]
        found += [model.get_weights(), history.epoch]
    return found


def assert_near(found: list[Any], expected: list[Any]) -> None:
    """Equal up to rounding in float64."""
    tree = keras.tree
    tree.assert_same_structure(found, expected)
    for a, b in zip(tree.flatten(found), tree.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def assert_equal(found: Any, expected: Any) -> None:
    """Equal to the bit."""
    keras.tree.assert_same_structure(found, expected)
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.compile
@pytest.mark.sample
def test_a_program_trains_scores_and_predicts_what_it_does_with_keras(float64: None) -> None:
    expected = program()
    with tfmb.patch_keras():
        found = program()
    assert_near(found, expected)
    assert_equal(program(), expected)  # Keras's own again


@pytest.mark.compile
def test_the_methods_are_the_functions() -> None:
    def train(fit: Callable[..., Any], evaluate: Callable[..., Any]) -> list[Any]:
        keras.utils.set_random_seed(0)
        model = build()
        return [
            fit(model, X, Y, epochs=2, verbose=0, seed=1).history,
            evaluate(model, X, Y, verbose=0),
            model.get_weights(),
        ]

    expected = train(tfmb.fit, tfmb.evaluate)
    with tfmb.patch_keras():
        assert_equal(train(keras.Model.fit, keras.Model.evaluate), expected)
        assert_equal(train(keras.Sequential.fit, lambda model, *a, **k: model.evaluate(*a, **k)), expected)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_is_raised_the_methods_are_kerass_afterwards(error: type[BaseException]) -> None:
    def fail() -> None:
        assert keras.Model.fit is not THEIRS["fit"]
        assert keras.Model.fit.__doc__ == THEIRS["fit"].__doc__
        raise error

    with pytest.raises(error), tfmb.patch_keras():
        fail()


def test_one_at_a_time_and_one_after_the_other() -> None:
    patch = tfmb.patch_keras()
    with patch:
        for inner in (patch, tfmb.patch_keras()):
            with pytest.raises(ConfigError, match="replaced already"):
                inner.__enter__()
        assert keras.Model.fit is not THEIRS["fit"]
    with patch:
        assert keras.Model.fit is not THEIRS["fit"]


class Batches(keras.utils.PyDataset):
    def __init__(self, drawn: list[int] | None = None) -> None:
        super().__init__()
        self.drawn = [] if drawn is None else drawn

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.drawn.append(index)
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


def generator(drawn: list[int] | None = None) -> Iterator[Any]:
    """Batches without an end; `drawn` has a number for each that was drawn."""
    while True:
        if drawn is not None:
            drawn.append(len(drawn))
        yield X[:8], Y[:8]


class OwnFunctions(keras.Sequential):
    """Refused before anything is looked at."""

    def make_train_function(self, force: bool = False) -> Any:
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        return super().make_predict_function(force)


class OwnMetrics(keras.Sequential):
    """Refused when the step is made: the model and its optimizer are built, and the run has a folder."""

    def compute_metrics(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_metrics(*args, **kwargs)


REFUSED: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "functions": (lambda: build(OwnFunctions), lambda: X, "OwnFunctions has a make_train_function of its own"),
    "parts": (lambda: build(OwnMetrics), lambda: X, "OwnMetrics.compute_metrics sees parts of a batch"),
}


@pytest.mark.parametrize("case", here(REFUSED, ["functions"], "compile"))
def test_what_is_refused_goes_to_keras_and_says_why(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, data, words = REFUSED[case]

    def refused() -> list[Any]:
        keras.utils.set_random_seed(0)
        model, x = make(), data()
        y = Y if x is X else None
        seen = Seen()
        history = model.fit(x, y, steps_per_epoch=2, epochs=2, verbose=0, callbacks=[seen])
        return [history.history, model.get_weights(), seen.calls, random.random(), np.random.uniform()]

    expected = refused()
    capsys.readouterr()
    parts: dict[str, Any] = {"virtual_replicas": 2} if case == "parts" else {}
    with tfmb.patch_keras(**parts):
        assert_equal(refused(), expected)
        line = capsys.readouterr().err
        refused()
    assert line.startswith("tfmb: test_keras_patch.py:")
    assert f"Keras's own fit: {words}" in line
    assert line.count("\n") == 1
    assert not capsys.readouterr().err  # said once


class Seen(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch}")


def test_scoring_and_predicting_that_is_refused_goes_to_keras(capsys: pytest.CaptureFixture[str]) -> None:
    model = build(OwnFunctions)

    def call() -> list[Any]:
        return [method(X, steps=2, verbose=0) for method in (lambda x, **k: model.evaluate(x, Y, **k), model.predict)]

    expected = call()
    with tfmb.patch_keras():
        assert_equal(call(), expected)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("'s own ")[1].split(":")[0] for line in lines] == ["evaluate", "predict"]


@pytest.mark.compile
def test_kerass_fit_scores_by_kerass_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(0)
    expected = build(OwnFunctions).fit(X, Y, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y)).history
    with tfmb.patch_keras():
        keras.utils.set_random_seed(0)
        found = build(OwnFunctions).fit(X, Y, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y)).history
    assert_equal(found, expected)
    assert capsys.readouterr().err.count("\n") == 1


def test_strict_makes_it_an_error() -> None:
    drawn: list[int] = []
    model = build(OwnFunctions)
    weights = model.get_weights()
    with tfmb.patch_keras(strict=True):
        for call in (model.fit, model.evaluate, model.predict):
            for data in (generator(drawn), Batches(drawn)):
                with pytest.raises(ConfigError, match=r"OwnFunctions has a make_\w+_function of its own"):
                    call(data)
    assert not drawn
    assert_equal(model.get_weights(), weights)


def once() -> Any:
    """A dataset that can be drawn from once."""
    left = iter([(X[:8], Y[:8]), (X[8:16], Y[8:16])])
    spec = (tf.TensorSpec((None, 6), tf.float64), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(lambda: left, output_signature=spec)


def test_what_is_refused_after_something_was_drawn_is_an_error() -> None:
    model = build()
    with tfmb.patch_keras(), pytest.raises(ConfigError, match="epoch 2 has no batch"):
        model.fit(once(), epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 2
    with tfmb.patch_keras(), pytest.raises(ConfigError, match="no batch"):
        model.evaluate(once().take(0), verbose=0)


class Refuses(keras.callbacks.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        raise ConfigError("a callback's")


def test_an_error_of_a_callback_is_no_refusal() -> None:
    with tfmb.patch_keras(), pytest.raises(ConfigError, match="a callback's"):
        build().fit(X, Y, verbose=0, callbacks=[Refuses()])


def test_divergence_is_no_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    model = build(optimizer=keras.optimizers.SGD(1e30), loss="mse", metrics=[])
    with tfmb.patch_keras(), pytest.raises(DivergenceError):
        model.fit(X, X[:, :2], epochs=3, verbose=0)
    assert "Keras's own" not in capsys.readouterr().err


class OwnFit(keras.Sequential):
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        self.asked = ["fit"]
        return super().fit(*args, epochs=2, verbose=0, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append("evaluate")
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append("predict")
        return super().predict(*args, **kwargs)


@pytest.mark.compile
def test_a_models_own_methods_get_ours_from_super() -> None:
    model = build(OwnFit)
    with tfmb.patch_keras(strict=True):
        history = model.fit(X, Y, virtual_replicas=2)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
    assert history.epoch == [0, 1]
    assert model.asked == ["fit", "evaluate", "predict"]
    with tfmb.patch_keras(strict=True):
        model.fit(X, Y, validation_data=(X, Y))
    assert model.asked == ["fit", "evaluate", "evaluate"]
    tfmb.fit(model, X, Y)  # calls it too
    assert model.asked == ["fit"]


@pytest.mark.compile
def test_the_methods_take_our_arguments_by_name() -> None:
    expected = tfmb.fit(seeded(), X, Y, virtual_replicas=2, seed=5, verbose=0).history
    with tfmb.patch_keras():
        assert seeded().fit(X, Y, virtual_replicas=2, seed=5, verbose=0).history == expected
        with pytest.raises(ConfigError, match="virtual_replicas=3"):  # which Keras does not know
            seeded().fit(X, Y, virtual_replicas=3, verbose=0)
    with tfmb.patch_keras(virtual_replicas=2, seed=1):
        assert seeded().fit(X, Y, seed=5, verbose=0).history == expected


def seeded() -> Any:
    keras.utils.set_random_seed(0)
    return build()


def test_arguments_that_nobody_knows_are_kerass_error() -> None:
    for method, error in (("fit", TypeError), ("predict", TypeError), ("evaluate", ValueError)):
        with tfmb.patch_keras(), pytest.raises(error, match="nothing") as caught:
            getattr(build(), method)(X, nothing=1)
        assert not isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("no option 'nothing'", {"nothing": 1}),
        ("no option 'batch_size'", {"batch_size": 8}),
        ("optimizer=...", {"optimizer": "adam"}),
        ("resume=...", {"resume": True}),
        ("virtual_replicas=3", {"virtual_replicas": 3}),
        ("cannot both be given", {"virtual_replicas": 2, "micro_batch_size": 2}),
        ("micro_batch_size=0", {"micro_batch_size": 0}),
        ("jit_compile='all'", {"jit_compile": "all"}),
        ("devices=0", {"devices": 0}),
        ("too late to make 9", {"devices": 9}),
        ("checkpoint_every=0", {"checkpoint_every": 0}),
        ("on_divergence='go'", {"on_divergence": "go"}),
        ("needs run_dir", {"on_divergence": "restore"}),
        ("seed=-1", {"seed": -1}),
    ],
)
def test_options_that_no_call_can_honour_are_refused(words: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught, tfmb.patch_keras(**options):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"strategy": "everywhere"}, {"strategy": "mirrored", "devices": 2}])
def test_a_strategy_that_cannot_be_made_is_no_refusal_of_a_call(options: dict[str, Any]) -> None:
    parts: dict[str, Any] = {} if options["strategy"] == "everywhere" else {"virtual_replicas": 1}
    with tfmb.patch_keras(**options, **parts), pytest.raises(ConfigError, match=r"everywhere|evenly among 2"):
        build().fit(X, Y, verbose=0)


@pytest.mark.compile
def test_options_hold_for_all_calls(two_replicas: Any, tmp_path: Path) -> None:
    expected = tfmb.fit(seeded(), X, Y, seed=derive(7, "fit", 1), virtual_replicas=4, verbose=0).history
    with tfmb.patch_keras(tmp_path, virtual_replicas=4, seed=7, strategy="mirrored", devices=2, checkpoint_every=9):
        model = seeded()
        assert model.fit(X, Y, verbose=0).history == expected
        model.fit(X, Y, verbose=0)
        assert model.predict(X, verbose=0).shape == (26, 2)
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("fit-1", "fit-2")]
    assert [record["config"]["seed"] for record in records] == [derive(7, "fit", 1), derive(7, "fit", 2)]
    assert records[0]["strategy"]["replicas"] == 2


@pytest.mark.compile
def test_a_program_goes_on_with_its_runs(tmp_path: Path) -> None:
    def run(seen: Seen) -> list[Any]:
        with tfmb.patch_keras(tmp_path / "runs"):
            found = program(callbacks=[seen], shuffle=True)
        return [*found, random.random(), np.random.uniform()]

    seen, again = Seen(), Seen()
    expected = run(seen)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fit-1", "fit-2", "fit-3"]
    assert_equal(run(again), expected)
    assert len(seen.calls) == 9
    assert not again.calls  # nothing was trained


@pytest.mark.compile
@pytest.mark.parametrize("batches", [(2, 1), (5, 3)])
def test_a_program_that_was_stopped_ends_as_one_that_was_not(
    batches: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str) -> list[Any]:
        with tfmb.patch_keras(tmp_path / folder):
            return [*program(shuffle=True), random.random()]

    expected = run("whole")
    stop = StopAfter(monkeypatch)
    for number, stop.batches in enumerate(batches, 1):  # the first fit has passed the second number by then
        with pytest.raises(PreemptedError, match=f"fit-{number}"):
            run("stopped")
    stop.batches = None
    assert_equal(run("stopped"), expected)


@pytest.mark.compile
def test_another_program_is_no_refusal_of_its_runs(tmp_path: Path) -> None:
    with tfmb.patch_keras(tmp_path):
        seeded().fit(X, Y, verbose=0)
    with tfmb.patch_keras(tmp_path), pytest.raises(ConfigError, match="epochs"):
        seeded().fit(X, Y, epochs=3, verbose=0)
    with tfmb.patch_keras(tmp_path), pytest.raises(ConfigError, match="x is a generator"):
        seeded().fit(generator(), steps_per_epoch=2, verbose=0)


@pytest.mark.compile
def test_what_is_refused_has_no_run_but_a_number(tmp_path: Path) -> None:
    with tfmb.patch_keras(tmp_path / "runs"):
        for data in (X, generator(), X):
            build().fit(data, Y if data is X else None, steps_per_epoch=1, verbose=0)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fit-1", "fit-3"]
    with tfmb.patch_keras(tmp_path / "parts", virtual_replicas=2):  # refused when there is a folder already
        build(OwnMetrics).fit(X, Y, verbose=0)
        build().fit(X, Y, verbose=0)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["fit-2"]


class Fits(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        build().fit(X, Y, verbose=0)


@pytest.mark.compile
def test_a_fit_within_a_fit_has_no_run(tmp_path: Path) -> None:
    for _ in range(2):
        with tfmb.patch_keras(tmp_path):
            seeded().fit(X, Y, epochs=2, verbose=0, callbacks=[Fits()])
            build().fit(X, Y, verbose=0)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["fit-1", "fit-2"]


@pytest.mark.parametrize("options", [{}, {"strategy": "mirrored", "devices": 2}])
def test_the_programs_generators_stay_where_they_are(options: dict[str, Any]) -> None:
    def next_numbers() -> list[Any]:
        return [random.random(), np.random.uniform(), float(keras.random.uniform(()))]

    expected = [seeded(), next_numbers()][1]
    with tfmb.patch_keras(**options):
        seeded().fit(X, Y, verbose=0)
        found = next_numbers()
    assert found == expected
