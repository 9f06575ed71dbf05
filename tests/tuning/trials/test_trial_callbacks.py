"""Callbacks of a search: copies for each training, called as by Keras Tuner, their state kept where a trial is cut."""

import copy
import threading
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.data.source import Source
from tfmb.distribution import make_strategy
from tfmb.errors import ConfigError, DataError
from tfmb.tuning.budget import Budget
from tfmb.tuning.space import Space
from tfmb.tuning.trials import slices
from tfmb.tuning.trials.callbacks import callbacks_of, copies
from tfmb.tuning.trials.trial import Ran, SearchTask, Trainer

callbacks = keras.callbacks
_random = np.random.default_rng(0)
X = _random.normal(size=(48, 4)).astype("float32")
Y = (X[:, :1] + 0.5 * _random.normal(size=(48, 1))).astype("float32")
VALUES: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.02, "optimizer": "sgd"}
CALLS: list[tuple[Any, ...]] = []


def build(hp: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(None, "mse")
    return model


def build_rates(hp: Any) -> Any:
    model = build(hp)
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.05, 0.7, 0.9])), "mse")
    return model


class Told(keras.callbacks.Callback):
    """Notes what it is told, also from copies, and counts in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs, self.losses = 0, list[float]()

    def on_train_begin(self, logs: Any = None) -> None:
        CALLS.append(("begin", self.epochs, dict(self.params)["epochs"]))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        CALLS.append(("epoch", epoch, float(self.model.optimizer.learning_rate)))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1
        self.losses.append(logs["val_loss"])
        CALLS.append(
            ("ended", epoch, self.epochs, len(self.losses), round(logs["loss"], 4), round(logs["val_loss"], 4))
        )

    def on_train_end(self, logs: Any = None) -> None:
        CALLS.append(("end", self.epochs))


@pytest.mark.compile
def test_callbacks_see_what_keras_tuner_shows_them(tmp_path: Path) -> None:
    """Whole batches and fixed weights: so both train alike, and a trial of a high rate ends early in both."""
    given: Any = [Told(), callbacks.EarlyStopping(patience=1, min_delta=1e-3)]
    tuner = keras_tuner.GridSearch(
        build_rates, objective="val_loss", max_trials=3, directory=str(tmp_path), project_name="theirs"
    )
    CALLS.clear()
    tuner.search(X[:40], Y[:40], batch_size=40, epochs=6, validation_data=(X[40:], Y[40:]), callbacks=given, verbose=0)
    theirs = list(CALLS)
    CALLS.clear()
    found = tfmb.tune(
        build_rates, X[:40], Y[:40], batch_size=40, epochs=6, validation_data=(X[40:], Y[40:]), callbacks=given,
        oracle="grid", max_trials=3, seed=0,
    )  # fmt: skip
    assert theirs == CALLS
    lengths = [len(trial.history) for trial in found.trials]
    assert min(lengths) < 6
    assert max(lengths) == 6
    scores = {trial.hyperparameters.values["rate"]: trial.score for trial in tuner.oracle.trials.values()}
    for trial in found.trials:
        assert trial.fate == "completed"
        assert trial.history[-1].epochs == len(trial.history)
        assert trial.score == pytest.approx(scores[trial.values["rate"]], rel=1e-4)
    assert given[0].epochs == 0  # the copies were called


def trainer(*given: Any, **about: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "build": build,
        "train": Source.from_arrays(X[:40], Y[:40]),
        "validation": Source.from_arrays(X[40:], Y[40:]),
        "budget": Budget(amount=8, slices=8),
        "space": Space(),
        "strategy": make_strategy("auto"),
        "callbacks": given,
        **about,
    }
    return Trainer(SearchTask(**arguments))


def seen(ran: Ran) -> list[Any]:
    return [(e.slice, e.updates, e.epochs, e.metrics) for e in ran.history]


def halved(epoch: int, rate: float) -> float:
    return rate * (0.5 if epoch in (3, 4) else 1.0)


KEPT: list[Any] = [
    callbacks.EarlyStopping("loss", patience=2, min_delta=0.2, restore_best_weights=True),
    callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.3, factor=0.3),
    callbacks.LearningRateScheduler(halved),
]


@pytest.mark.compile
@pytest.mark.parametrize("compiled", [False, True])
def test_a_trial_that_is_cut_after_each_epoch_is_the_same_to_the_bit(compiled: bool) -> None:
    about: dict[str, Any] = {"build": build_rates if compiled else build}
    whole = trainer(Told(), *KEPT, **about)
    CALLS.clear()
    expected = whole.run(VALUES)
    called = list(CALLS)
    assert 2 < len(expected.history) < 8
    assert expected.ended
    assert expected.state is None
    CALLS.clear()
    ran = Ran([])
    while not ran.ended:
        other = trainer(Told(), *KEPT, **about)
        ran = other.run(VALUES, lambda _: False, ran.state, ran.history)
    assert seen(ran) == seen(expected)
    np.testing.assert_equal(other.weights(), whole.weights())  # the best ones
    assert [call for call in CALLS if call[0] != "begin"] == [call for call in called if call[0] != "begin"]
    # The next trial of the same trainer begins anew.
    assert seen(whole.run(VALUES)) == seen(expected)


@pytest.mark.compile
def test_a_trial_on_two_devices_begins_with_nothing_of_the_one_before(two_replicas: Any) -> None:
    def momentum(hp: Any) -> Any:
        model = build(hp)
        model.compile(keras.optimizers.SGD(0.02, momentum=0.9), "mse")
        return model

    ours = trainer(callbacks.LearningRateScheduler(halved), build=momentum, strategy=two_replicas)
    expected = seen(ours.run(VALUES))
    assert seen(ours.run(VALUES)) == expected


@pytest.mark.compile
def test_what_cannot_be_kept_is_refused_and_no_reason_to_cut() -> None:
    class Arrays(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seen = {*getattr(self, "seen", ()), epoch}

    ours = trainer(Arrays())
    could: list[bool] = []

    def go_on(_: Any) -> bool:
        could.append(ours.can_pause)
        return True

    assert len(ours.run(VALUES, go_on).history) == 8
    assert could == [False] * 8
    with pytest.raises(ConfigError, match="the seen of Arrays cannot be kept where pruning cuts a trial: let it hold"):
        trainer(Arrays()).run(VALUES, lambda _: False)


@pytest.mark.compile
def test_a_damaged_state_is_told() -> None:
    ran = trainer(Told()).run(VALUES, lambda _: False)
    assert ran.state is not None
    other = trainer(callbacks.EarlyStopping(), Told()).run(VALUES, lambda _: False)
    assert other.state is not None
    text = ran.state["callbacks"].tobytes().replace(b'"collected"', b'"collexted"')
    damaged = {**ran.state, "callbacks": np.frombuffer(text, np.uint8)}
    with pytest.raises(DataError, match="the state of a trial"):
        trainer(Told()).run(VALUES, state=damaged, begun=ran.history)


@pytest.mark.compile
def test_executions_end_each_for_itself_and_the_best_epoch_of_each_counts() -> None:
    stop = callbacks.EarlyStopping(patience=0, min_delta=0.05)
    ours = trainer(stop, executions=2)
    (mean,) = ours.run(VALUES).history
    single = [ours._execute(VALUES, number, lambda _: True, None, []).history for number in range(2)]
    best = [min(each.metrics["val_loss"] for each in history) for history in single]
    assert mean.metrics["val_loss"] == pytest.approx(sum(best) / 2)
    assert mean.slice == 1


@pytest.mark.compile
@pytest.mark.parametrize("oracle", ["random", "hyperband"])
def test_a_search_that_prunes_is_the_same_however_often_it_is_cut(
    oracle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hyperband's rounds are trainings of their own: there a first epoch is never too bad.
    stops = callbacks.EarlyStopping(min_delta=0.02 if oracle == "random" else 1e9)

    def table(**given: Any) -> Any:
        found = tfmb.tune(
            build, X, Y, oracle=oracle, max_trials=14, batch_size=[8, 16], learning_rate=(1e-2, 0.2), epochs=9, seed=3,
            optimizer="sgd", pruning=oracle == "random", callbacks=stops, **given,
        )  # fmt: skip
        return [(t.values, t.fate, t.cause, t.score, [e.metrics for e in t.history]) for t in found.trials]

    expected = table(run_dir=tmp_path / "s")
    early = [len(history) for _, fate, *_, history in expected if fate == "completed" and len(history) < 9]
    assert early
    assert (tmp_path / "s" / "journal.jsonl").read_text().count('"early": true') == len(early)
    assert table(run_dir=tmp_path / "s") == expected  # read again
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    assert table() == expected
    journal = (tmp_path / "s" / "journal.jsonl").read_text()
    half = journal[: journal.rindex('"early": true')].rpartition("\n")[0] + "\n"  # killed before it was told
    (tmp_path / "s" / "journal.jsonl").write_text(half)
    assert table(run_dir=tmp_path / "s") == expected


def test_files_of_a_trial_have_a_folder_of_their_own() -> None:
    given = [
        callbacks.ModelCheckpoint("runs/best-{epoch}.keras"),
        callbacks.CSVLogger("log.csv"),
        callbacks.TensorBoard("logs"),
    ]
    made = copies(given, "0003/execution0")
    assert made[0].filepath == "runs/0003/execution0/best-{epoch}.keras"
    assert made[1].filename == "0003/execution0/log.csv"
    assert made[2].log_dir == "logs/0003/execution0"
    assert (given[0].filepath, given[1].filename, given[2].log_dir) == ("runs/best-{epoch}.keras", "log.csv", "logs")


@pytest.mark.compile
def test_files_of_a_trial_that_is_cut_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    given = [
        callbacks.CSVLogger(str(tmp_path / "log.csv")),
        callbacks.ModelCheckpoint(tmp_path / "w" / "{epoch}.keras"),
    ]
    found = tfmb.tune(build, X, Y, max_trials=2, oracle="random", epochs=3, callbacks=given, seed=0)
    for trial in (each.trial for each in found.trials):
        lines = (tmp_path / trial / "execution0" / "log.csv").read_text().splitlines()
        assert [line.partition(",")[0] for line in lines] == ["epoch", "0", "1", "2"]
        assert len(list((tmp_path / "w" / trial / "execution0").iterdir())) == 3


class Locked(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"callbacks": [3]}, "callbacks: 3 is no keras.callbacks.Callback"),
        ({"callbacks": callbacks.CallbackList([])}, "is a CallbackList, which is one model's: give a list"),
        ({"callbacks": [callbacks.BackupAndRestore("x")]}, "has a BackupAndRestore: leave it out"),
        ({"callbacks": [Locked()]}, "callbacks cannot be copied, as each trial needs them .*lock"),
        ({"epochs": 0.5}, "epochs=0.5: callbacks see whole epochs"),
        ({"epochs": (1, 2.5)}, "callbacks see whole epochs"),
        ({"budget": Budget(amount=9, unit="updates")}, "give epochs=N in place of budget"),
        ({"pruning": True}, "give epochs=3 or more to prune"),
        ({"oracle": "hyperband"}, "give epochs=3 or more to prune"),
    ],
)
def test_what_callbacks_cannot_have_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tfmb.tune(build, X, Y, **{"callbacks": [Told()], **given})


@pytest.mark.compile
def test_epochs_may_be_searched_but_not_by_build_alone() -> None:
    given: dict[str, Any] = {"max_trials": 4, "oracle": "random", "seed": 0, "callbacks": Told(), "batch_size": 8}
    found = tfmb.tune(build, X, Y, epochs=(1, 4), pruning=True, **given)
    completed = [trial for trial in found.trials if trial.fate == "completed"]
    assert completed
    assert all(len(trial.history) == trial.values["epochs"] for trial in completed)

    def asking(hp: Any) -> Any:
        hp.Fixed("epochs", 5)
        return build(hp)

    with pytest.raises(
        ConfigError, match=r"epochs=5 of build\(hp\), where the search is told of up to 2: with callbacks"
    ):
        tfmb.tune(asking, X, Y, epochs=2, **given)


@pytest.mark.compile
def test_another_patience_is_another_search(tmp_path: Path) -> None:
    given: dict[str, Any] = {"max_trials": 1, "oracle": "random", "seed": 0, "run_dir": tmp_path / "s", "epochs": 2}
    tfmb.tune(build, X, Y, callbacks=callbacks.EarlyStopping(patience=2), **given)
    tfmb.tune(build, X, Y, callbacks=callbacks.EarlyStopping(patience=2), **given)
    for other in (callbacks.EarlyStopping(patience=3), None):
        with pytest.raises(ConfigError, match=r"holds a search with another (callbacks|budget)"):
            tfmb.tune(build, X, Y, callbacks=other, **given)


def test_callbacks_are_taken_as_fit_takes_them() -> None:
    one, two = Told(), Told()
    assert callbacks_of(None) == ()
    assert callbacks_of(one) == (one,)
    assert callbacks_of([one, [two]]) == (one, two)
    assert copy.deepcopy(one) is not one
