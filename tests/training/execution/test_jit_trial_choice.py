"""A trial finds what is fastest, changes nothing at all, and its answer is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_fits import LOSS, X, Y, build, fit
from stopped_runs import assert_same_values

import tfmb
from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.optimizers import SGD, Adam
from tfmb.runs.run_record import read_run, write_run
from tfmb.training.execution import jit_trial

layers = keras.layers


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, float]]:
    """Every training is worth a trial; in what was measured the `call` is fastest. The trials that were made."""
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jit_trial, "_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(jit_trial, "_WORTH_UPDATES", 1)
    monkeypatch.setattr(jit_trial, "_TOO_SLOW", 1e9)
    monkeypatch.setattr(jit_trial, "_SHORT_SECONDS", 1e9)  # on a busy machine an update of this model takes 5 ms
    monkeypatch.setattr(jit_trial, "_TIMED_SECONDS", 0.01)
    made: list[dict[str, float]] = []
    trial = jit_trial._trial

    def recorded(*arguments: Any) -> dict[str, float]:
        found = trial(*arguments)
        found |= {"call": 1e-9} if "call" in found else {}
        made.append(found)
        return found

    monkeypatch.setattr(jit_trial, "_trial", recorded)
    return made


@pytest.fixture
def answers(trials: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """As `trials`, but their answer is given, not measured: for what is done with it. The update is fastest."""

    def given(*_: Any) -> dict[str, float]:
        trials.append({"nothing": 1e-3, "update": 1e-9})
        return trials[-1]

    monkeypatch.setattr(jit_trial, "_trial", given)
    return trials


@pytest.mark.compile
def test_trial_changes_nothing(trials: list[dict[str, float]]) -> None:
    assert_same_values(fit("auto"), fit("call"))
    (seconds,) = trials
    assert list(seconds) == ["nothing", "update", "step", "call"]
    assert all(0 < value < 10 for value in seconds.values())


@pytest.mark.compile
def test_whole_steps_are_tried_only_where_they_are_short(
    trials: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_trial, "_SHORT_SECONDS", 0.0)
    monkeypatch.setattr(jit_trial, "_FAIRLY_SHORT_SECONDS", 0.0)
    fit("auto")
    assert list(trials[0]) == ["nothing", "update"]


@pytest.mark.slow
def test_whole_steps_are_tried_where_their_operations_are_short(
    trials: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_trial, "_SHORT_SECONDS", 0.0)
    monkeypatch.setattr(jit_trial, "_FAIRLY_SHORT_SECONDS", 1e9)
    monkeypatch.setattr(jit_trial, "_SHORT_OPERATION_SECONDS", 1e9)
    fit("auto")
    assert list(trials[0]) == ["nothing", "update", "step", "call"]


@pytest.mark.parametrize(
    ("seconds", "operations", "short"),
    [(0.004, 0, True), (0.006, 0, False), (0.012, 337, False), (0.012, 1404, True), (0.021, 10_000, False)],
)
def test_short_updates(seconds: float, operations: int, short: bool) -> None:
    assert jit_trial._is_short(seconds, operations) is short


@pytest.mark.slow
def test_calls_are_not_tried_where_a_compiled_step_is_slow(
    trials: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_trial, "_TOO_SLOW", 0.0)
    fit("auto")
    assert list(trials[0]) == ["nothing", "update", "step"]


@pytest.mark.parametrize("halted", ["nothing", "update", "step", "call"])
def test_moment_in_which_the_machine_halts_ends_nobodys_chances(halted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen: a single slow measurement of `step`, and `call`, twice as fast as all others, was not tried.
    class FakeSteps:
        operations = 0

        def __init__(self, candidate: JitScope) -> None:
            self.name, self.timed = candidate.value, 0

        def prepare(self, spec: Any) -> None:
            assert spec == "spec"

    class FakeBatches:
        element_spec = "spec"

    def seconds_of(steps: FakeSteps, _: Any, count: int) -> float:
        steps.timed += count > 1
        spike = 10 if steps.name == halted and steps.timed == 1 else 1
        return count * spike * {"nothing": 0.0010, "update": 0.0009, "step": 0.0008, "call": 0.0004}[steps.name]

    monkeypatch.setattr(jit_trial, "_seconds_of", seconds_of)
    seconds = jit_trial._trial(FakeSteps, FakeBatches(), 100_000)
    assert min(seconds, key=lambda name: seconds[name]) == "call"
    assert seconds[halted] < 0.0011


@pytest.mark.compile
def test_answer_is_kept_for_the_same_work(answers: list[dict[str, float]]) -> None:
    fit("auto")
    fit("auto", optimizer=Adam(0.02, global_clipnorm=0.5, use_ema=True))  # the rate does not matter
    assert len(answers) == 1
    fit("auto", batch_size=9)
    fit("auto", optimizer=SGD(0.01))
    assert len(answers) == 3


@pytest.mark.slow
def test_second_training_uses_what_the_first_one_compiled(trials: list[dict[str, float]]) -> None:
    model, optimizer = build(), Adam(0.01)
    made = []
    for _ in range(3):
        tfmb.fit(model, X.astype("float32"), Y, 8, verbose=0, optimizer=optimizer, loss=LOSS, seed=0)
        made.append(model._tfmb_steps[-1])
    assert made[0] is made[1] is made[2]
    assert made[0]._rows.experimental_get_tracing_count() == 1
    assert len(trials) == 1


@pytest.mark.slow
def test_damaged_cache_is_measured_anew(answers: list[dict[str, float]], tmp_path: Path) -> None:
    fit("auto")
    (path,) = (tmp_path / "cache" / "execution").iterdir()
    contents = ["", "{}", "[]", '{"compiled": "x", "seconds": {}}', '{"compiled": "step"}']
    for number, content in enumerate(contents, start=2):
        path.write_text(content)
        fit("auto")
        assert len(answers) == number, content
        assert json.loads(path.read_text())["compiled"] == "update"


@pytest.mark.compile
def test_cache_that_cannot_be_written_stops_nothing(
    answers: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "file"))
    fit("auto")
    assert len(answers) == 1


@pytest.mark.compile
def test_what_xla_cannot_compile_is_left_to_tensorflow(trials: list[dict[str, float]]) -> None:
    def model() -> Any:
        inputs = keras.Input((6,))
        words = layers.Lambda(lambda x: x + 0.0 * tf.cast(tf.strings.length(tf.strings.as_string(x)), x.dtype))
        return keras.Model(inputs, layers.Dense(2)(words(inputs)))

    tfmb.fit(model, X.astype("float32"), Y, 8, optimizer="adam", loss=LOSS, verbose=0, seed=0)
    assert set(trials[0]) == {"nothing", "update"}


@pytest.mark.slow
def test_what_asks_for_the_same_bits_is_not_measured(trials: list[dict[str, float]]) -> None:
    for partition in ({"virtual_replicas": 2}, {"micro_batch_size": 4}, {"devices": 2}):
        with pytest.warns(UserWarning, match="normalise by the statistics of each"):
            fit("auto", **partition)
    fit("auto", optimizer=keras.optimizers.Lion(0.01))
    assert not trials


@pytest.mark.compile
def test_float16_is_not_measured(trials: list[dict[str, float]]) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        fit("auto", x=X.astype("float32"))
    finally:
        keras.config.set_dtype_policy(before)
    assert not trials


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:LambdaCallback must see every batch")
def test_calls_of_one_step_are_not_measured(trials: list[dict[str, float]]) -> None:
    fit("auto", callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)])
    assert not trials


@pytest.mark.compile
@pytest.mark.parametrize("least", [1, 100])
def test_short_training_is_not_worth_a_trial(least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit_trial, "_WORTH_UPDATES", least)
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "cache"))
    assert_same_values(fit("auto", run_dir=tmp_path / "run"), fit("nothing"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["execution"]["compiled"] == "nothing"
    assert not (tmp_path / "cache" / "execution").exists()


@pytest.mark.compile
def test_run_that_goes_on_is_executed_as_it_began(
    trials: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("auto", run_dir=tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert record["execution"]["compiled"] == "call"
    record["status"] = "running"  # as after a kill; its last checkpoint is its end
    write_run(tmp_path / "run", record)
    seen: list[JitScope] = []
    steps_for = tfmb.training.trainer.steps_for

    def spy(placed: Any, spec: Any) -> Any:
        seen.append(spec.jit_scope)
        return steps_for(placed, spec)

    monkeypatch.setattr("tfmb.training.trainer.steps_for", spy)
    fit("auto", run_dir=tmp_path / "run", resume=True)
    assert seen == [JitScope.CALL]
    assert len(trials) == 1


class _Examples:
    """Examples by number."""

    def __init__(self, x: Any, y: Any) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, number: int) -> Any:
        return self._x[number], self._y[number]


@pytest.mark.slow
@pytest.mark.parametrize("read", [False, True])
def test_batches_that_do_not_lie_on_the_device_are_tried_too(
    trials: list[dict[str, float]], read: bool, tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype("float32"), np.arange(20) % 3
    given: dict[str, Any] = {"batch_size": 8, "epochs": 2, "loss": LOSS, "optimizer": "adam", "seed": 0, "verbose": 0}
    given |= {} if read else {"augment": tfmb.data.Augmentation(shift=1)}

    def weights(jit_compile: str) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)])
        data: tuple[Any, ...] = (_Examples(x, y),) if read else (x, y)
        tfmb.fit(model, *data, jit_compile=jit_compile, run_dir=tmp_path / jit_compile, **given)
        return model.get_weights()

    for one, other in zip(weights("auto"), weights("nothing"), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert [list(trial) for trial in trials] == [["nothing", "update", "step"]]  # calls need the arrays
    execution = json.loads((tmp_path / "auto" / "run.json").read_text())["execution"]
    assert set(execution["seconds_an_update"]) == {"nothing", "update", "step"}
