"""A run that was stopped and goes on ends with the bits of one that never stopped: weights, slots, logs, History."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here_by_name
from stopped_runs import (
    BATCH_SIZE,
    EPOCHS,
    LOSS,
    ROWS,
    RULES,
    StopAfter,
    X,
    Y,
    assert_same,
    build,
    check_every_stop,
    check_other_devices,
    fit,
    state_of,
)

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DataError, PreemptedError
from tfmb.optimizers import Adam
from tfmb.training.session import Session

layers = keras.layers


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> StopAfter:
    return StopAfter(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", here_by_name({"1 replica": 1, "2 replicas": 2}, ["1 replica"]))
def test_every_update_of_two_epochs_as_a_stopping_point(tmp_path: Path, stop: StopAfter, replicas: int) -> None:
    check_every_stop(tmp_path, stop, "adam", replicas)


@pytest.mark.compile
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "adam"])
def test_rules(tmp_path: Path, stop: StopAfter, rule: str) -> None:
    whole = fit(tmp_path / "whole", RULES[rule])
    stop.batches = 5
    with pytest.raises(PreemptedError):
        fit(tmp_path / "cut", RULES[rule])
    stop.batches = None
    resumed = fit(tmp_path / "cut", RULES[rule], resume=True)
    assert_same(resumed, whole, (tmp_path / "cut", tmp_path / "whole"))


@pytest.mark.compile
def test_two_stops_in_one_epoch(tmp_path: Path, stop: StopAfter) -> None:
    whole = fit(tmp_path / "whole", RULES["adam"])
    for batches in (1, 2, 7):
        stop.batches = batches
        with pytest.raises(PreemptedError):
            fit(tmp_path / "cut", RULES["adam"], resume=True)  # the first time there is no run yet: it begins
    stop.batches = None
    assert_same(fit(tmp_path / "cut", RULES["adam"], resume=True), whole, (tmp_path / "cut", tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", here_by_name({"virtual": {"virtual_replicas": 4}, "micro": {"micro_batch_size": 2}}, ["virtual"])
)
def test_other_numbers_of_devices(tmp_path: Path, stop: StopAfter, parts: dict[str, int]) -> None:
    check_other_devices(tmp_path, stop, parts, [(1, 2, 5), (2, 4, 5), (4, 1, 5)])


@pytest.mark.compile
def test_other_devices_without_parts_are_told_of(tmp_path: Path, stop: StopAfter) -> None:
    stop.batches = 5
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["adam"])
    stop.batches = None
    with (
        pytest.warns(UserWarning, match="goes on with 2 devices, and not 1: the same answer, but not to the bit"),
        pytest.warns(UserWarning, match="the metrics of this epoch are those of its remaining batches"),
    ):
        fit(tmp_path / "run", RULES["adam"], devices=2, resume=True)


@pytest.mark.compile
def test_finished_run_gives_its_weights_and_history(tmp_path: Path) -> None:
    whole = fit(tmp_path / "run", RULES["adam"])
    for replicas in (1, 2):
        again = fit(tmp_path / "run", RULES["adam"], resume=True, devices=replicas)
        assert again[0].history == whole[0].history
        found = [v.numpy() for v in (*again[0].model.variables, *again[1].variables)]
        for a, b in zip(found, state_of(whole), strict=True):
            np.testing.assert_array_equal(a, b)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    again = fit(tmp_path / "run", RULES["adam"], resume=True)
    for a, b in zip(again[0].model.get_weights(), whole[0].model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.compile
def test_early_stop_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def callbacks() -> list[Any]:
        return [keras.callbacks.EarlyStopping("loss", min_delta=10.0, patience=1)]

    whole = fit(tmp_path / "whole", RULES["adam"], callbacks=callbacks(), epochs=5)
    assert len(whole[0].epoch) == 2
    # Killed after its last checkpoint and before its result is written.
    with monkeypatch.context() as patch:
        patch.setattr(Session, "finish", lambda *_: None)
        fit(tmp_path / "run", RULES["adam"], callbacks=callbacks(), epochs=5)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    resumed = fit(tmp_path / "run", RULES["adam"], callbacks=callbacks(), epochs=5, resume=True)
    assert_same(resumed, whole, (tmp_path / "run", tmp_path / "whole"))


def test_what_differs_is_refused_by_name(tmp_path: Path, stop: StopAfter) -> None:
    stop.batches = 5
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["adam"])
    stop.batches = None
    record = (tmp_path / "run" / "run.json").read_bytes()
    refused: dict[str, dict[str, Any]] = {
        r"config\.batch_size was 8 and is 4": {"batch_size": 4},
        r"config\.seed was 3 and is 4": {"seed": 4},
        r"config\.epochs was 2 and is 3": {"epochs": 3},
        r"config\.virtual_replicas was null and is 2": {"virtual_replicas": 2},
    }
    for message, changed in refused.items():
        with pytest.raises(ConfigError, match=rf"cannot go on exactly: .*{message}.*--allow-mismatch"):
            fit(tmp_path / "run", RULES["adam"], resume=True, **changed)
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate was 0\.01 and is 0\.02"):
        fit(tmp_path / "run", lambda: Adam(0.02, use_ema=True, ema_momentum=0.9), resume=True)
    assert (tmp_path / "run" / "run.json").read_bytes() == record
    with pytest.warns(UserWarning, match=r"goes on, but not exactly: config\.epochs was 2 and is 3"):
        history, _ = fit(tmp_path / "run", RULES["adam"], resume=True, epochs=3, allow_mismatch=True)
    assert history.epoch == [0, 1, 2]


@pytest.mark.compile
def test_other_data_and_model_are_refused(tmp_path: Path, stop: StopAfter) -> None:
    stop.batches = 5
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["adam"])
    stop.batches = None

    def resume(model: Any, x: Any) -> None:
        tfmb.fit(
            model, x, Y, BATCH_SIZE, EPOCHS, optimizer=RULES["adam"](), loss=LOSS, seed=3, run_dir=tmp_path / "run",
            verbose=0, resume=True,
        )  # fmt: skip

    with pytest.raises(ConfigError, match=r"data\.fingerprint was"):
        resume(build, X + 1)
    with pytest.raises(ConfigError, match=r"model\.variables was"):
        resume(lambda: keras.Sequential([keras.Input((6,)), layers.Dense(2)]), X)


@pytest.mark.compile
def test_damaged_newest_checkpoint_is_set_aside(tmp_path: Path, stop: StopAfter) -> None:
    whole = fit(tmp_path / "whole", RULES["adam"])
    stop.batches = 7
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["adam"])
    stop.batches = None
    checkpoints = tmp_path / "run" / "checkpoints"
    newest = sorted(checkpoints.glob("step-*"))[-1]
    data = newest / "state.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.warns(UserWarning, match=r"state\.data.* is not as it was written .* set aside as damaged-0+7-0"):
        resumed = fit(tmp_path / "run", RULES["adam"], resume=True)
    assert_same(resumed, whole, (tmp_path / "run", tmp_path / "whole"))
    assert (checkpoints / "damaged-000000000007-0").is_dir()


@pytest.mark.compile
def test_no_whole_checkpoint_is_refused_and_none_ever_begins_anew(tmp_path: Path, stop: StopAfter) -> None:
    stop.batches = 7
    for name in ("lost", "gone"):
        with pytest.raises(PreemptedError):
            fit(tmp_path / name, RULES["adam"])
    stop.batches = None
    for newest in (tmp_path / "lost" / "checkpoints").glob("step-*"):
        (newest / "MANIFEST.json").write_text("{}")
    with (
        pytest.warns(UserWarning, match="set aside"),
        pytest.raises(DataError, match=r"no whole checkpoint .*train anew"),
    ):
        fit(tmp_path / "lost", RULES["adam"], resume=True)
    for newest in (tmp_path / "gone" / "checkpoints").glob("step-*"):
        shutil.rmtree(newest)
    with pytest.raises(DataError, match=r"no whole checkpoint \(they are gone\)"):
        fit(tmp_path / "gone", RULES["adam"], resume=True)
    # A run that was killed before its first checkpoint has a record and perhaps a line of its log.
    shutil.rmtree(tmp_path / "gone" / "checkpoints")
    (tmp_path / "gone" / "metrics.jsonl").write_text('{"update": 1}\n')
    whole = fit(tmp_path / "whole", RULES["adam"])
    assert_same(fit(tmp_path / "gone", RULES["adam"], resume=True), whole, (tmp_path / "gone", tmp_path / "whole"))


@pytest.mark.compile
def test_run_killed_before_its_record_was_written_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tfmb.training.run_writer.write_run", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", RULES["adam"], resume=True)
    assert_same(
        fit(tmp_path / "run", RULES["adam"], resume=True),
        fit(tmp_path / "whole", RULES["adam"]),
        (tmp_path / "run", tmp_path / "whole"),
    )


@pytest.mark.compile
def test_callbacks_go_on_where_they_were(tmp_path: Path, stop: StopAfter) -> None:
    def callbacks() -> list[Any]:
        return [
            keras.callbacks.EarlyStopping("loss", min_delta=10.0, patience=2),
            keras.callbacks.ReduceLROnPlateau("loss", min_delta=10.0, patience=2, factor=0.5),
        ]

    given: dict[str, Any] = {"epochs": 6}
    whole = fit(tmp_path / "whole", RULES["momentum"], callbacks=callbacks(), **given)
    assert len(whole[0].epoch) == 3
    stop.batches = 6
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["momentum"], callbacks=callbacks(), **given)
    stop.batches = None
    resumed = fit(tmp_path / "run", RULES["momentum"], callbacks=callbacks(), resume=True, **given)
    assert_same(resumed, whole, (tmp_path / "run", tmp_path / "whole"))


@pytest.mark.compile
def test_dataset_goes_on_only_where_it_is_declared_deterministic(tmp_path: Path, stop: StopAfter) -> None:
    options = tf.data.Options()
    options.deterministic = True

    def data() -> Any:
        return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(ROWS, seed=1).batch(BATCH_SIZE)

    def run(folder: str, declared: bool, **arguments: Any) -> Any:
        tf.random.set_seed(0)  # of which shuffle's own seed is only a part
        dataset = data().with_options(options) if declared else data()
        return tfmb.fit(
            build, dataset, epochs=3, optimizer=Adam(0.01), loss=LOSS, seed=3, verbose=0, run_dir=tmp_path / folder,
            checkpoint_every=3, **arguments,
        )  # fmt: skip

    whole = run("whole", True)
    stop.batches = 6
    for name in ("declared", "undeclared"):
        with pytest.raises(PreemptedError):
            run(name, name == "declared")
    stop.batches = None
    with pytest.raises(ConfigError, match=r"declare it deterministic \(options.deterministic = True"):
        run("undeclared", False, resume=True)
    resumed = run("declared", True, resume=True)
    assert resumed.history == whole.history


def test_resume_needs_a_run_dir() -> None:
    with pytest.raises(ConfigError, match="resume=True needs run_dir"):
        tfmb.fit(build, X, Y, optimizer="sgd", loss=LOSS, resume=True)


@pytest.mark.compile
def test_seed_that_was_drawn_is_the_records(tmp_path: Path, stop: StopAfter) -> None:
    stop.batches = 5
    with pytest.raises(PreemptedError):
        fit(tmp_path / "run", RULES["adam"], seed=None)
    stop.batches = None
    fit(tmp_path / "run", RULES["adam"], seed=None, resume=True)
