"""Runs of all kinds of models: parity with Keras's own loop, replica invariance, resume; and that each can fail."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import subjects
from verify_command import tfmb_command

import tfmb
from tfmb.backend import keras, tf
from tfmb.cli import main
from tfmb.errors import ConfigError, DataError
from tfmb.optimizers import SGD, Adam, schedules
from tfmb.verification import counterpart, invariance, parity, resume, trainings
from tfmb.verification.subject import Subject, read_subject

STEPS = 4


_NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in ("cnn", "resnet") else n for n in subjects.NAMES]


@pytest.fixture(scope="module", params=_NAMES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return made(request.param, tmp_path_factory.mktemp("runs"))


def made(name: str, folder: Path, *options: str) -> Subject:
    """A run of `tfmb train`, read again."""
    run = folder / name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*draw random numbers")
        assert main([*subjects.train_options(name), "--run-dir", str(run), "--json", *options]) == 0
    model, data = subjects.own(name)[1::2] if name not in ("cnn", "mlp", "resnet") else [None, None]
    return read_subject(run, model, data, None, STEPS)


@pytest.mark.compile
def test_parity_with_fit_in_64_bits(subject: Subject) -> None:
    check = parity.check_parity(subject)
    assert check.status == "passed", check
    assert "whole batches on one replica, float64" in check.detail
    assert "within 1e-11" in check.detail
    assert "Keras's own" in check.detail


@pytest.mark.compile
def test_parity_of_only_32_bits(tmp_path: Path) -> None:
    check = parity.check_parity(made("only_32_bits", tmp_path))
    assert check.status == "passed", check
    assert "one update from each of 4 states by Keras's own Adam, float32 (" in check.detail


def small(name: str, folder: Path, *options: str) -> Subject:
    return replace(made(name, folder, *options), epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular", "two_inputs", "two_outputs"])
def test_replica_invariance(name: str, tmp_path: Path) -> None:
    subject = small(name, tmp_path, "--virtual-replicas", "4")
    bits, tolerance = invariance.check_bits(subject), invariance.check_tolerance(subject)
    assert bits.status == tolerance.status == "passed", (bits, tolerance)
    assert "virtual_replicas=4" in bits.detail
    assert "one part a device" in tolerance.detail


@pytest.mark.compile
def test_what_does_not_apply_to_batch_normalization(tmp_path: Path) -> None:
    subject = small("resnet", tmp_path)
    tolerance = invariance.check_tolerance(subject)
    assert tolerance.status == "not applicable"
    assert "normalises by each part's own statistics" in tolerance.detail


@pytest.mark.slow
def test_each_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = small("two_inputs", tmp_path)
    with monkeypatch.context() as patch:
        other = keras.optimizers.SGD(0.05, momentum=0.875)
        patch.setattr(trainings, "keras_counterpart", lambda optimizer: (other, "another SGD"))
        found = parity.check_parity(subject)
    assert found.status == "failed", found
    fit = trainings.fit
    with monkeypatch.context() as patch:
        patch.setattr(trainings, "fit", lambda *given, **named: fit(*given, **{**named, "virtual_replicas": "auto"}))
        found = invariance.check_bits(subject)
    assert found.status == "failed", found
    with monkeypatch.context() as patch:
        seed = {1: 3, 2: 4}
        patch.setattr(
            trainings, "fit", lambda *given, **named: fit(*given, **{**named, "seed": seed[named["devices"]]})
        )
        found = invariance.check_tolerance(subject)
    assert found.status == "failed", found


@pytest.mark.slow
def test_resume_is_compared_to_the_bit(tmp_path: Path) -> None:
    # In one process here; the command has one for each part.
    subject = small("tabular", tmp_path)
    folder = tmp_path / "resume"
    folder.mkdir()
    resume.train_and_stop(subject, folder)
    stopped = json.loads((folder / "stopped" / "run.json").read_text())
    assert stopped["status"] == "preempted"
    resume.train_on(subject, folder)
    check = resume.check_resume(subject, folder)
    assert check.status == "passed", check
    with np.load(folder / "stopped" / "state.npz") as arrays:
        values = dict(arrays)
    values["0001"] = values["0001"] * np.float32(1 + 1e-6)
    np.savez(folder / "stopped" / "state.npz", **values)
    assert resume.check_resume(subject, folder).status == "failed"


@pytest.mark.compile
def test_a_run_of_fit_goes_by_its_record(tmp_path: Path) -> None:
    x, y = subjects.two_inputs_data()
    model = subjects.two_inputs()
    rate = schedules.Cosine(0.01, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfmb.fit(model, x, y, batch_size=16, optimizer=Adam(rate), seed=5, run_dir=tmp_path / "run", verbose=0)
    reference = ("subjects:two_inputs", "subjects:two_inputs_data")
    subject = read_subject(tmp_path / "run", *reference, None, STEPS)
    assert subject.seed == 5
    optimizer = subject.make_optimizer(subject.make_model(None))
    assert isinstance(optimizer, Adam)
    assert optimizer.learning_rate == rate
    assert parity.check_parity(subject).status == "passed"
    with pytest.raises(ConfigError, match="give --model module:function and --dataset module:function"):
        read_subject(tmp_path / "run", None, None, None, STEPS)
    with pytest.raises(DataError, match="trained on other data"):
        read_subject(tmp_path / "run", reference[0], "subjects:tabular_data", None, STEPS)


@pytest.mark.parametrize(
    "damage",
    [
        {"data": ["x"]},
        {"identity": "nothing"},
        {"identity": {"optimizer": 3}},
        {"identity": {"optimizer": {"class": "Adam", "learning_rate": -1.0}}},
        {"identity": {"optimizer": {"class": "SGD", "learning_rate": 0.1, "unknown": 1}}},
        {"identity": {"optimizer": {"class": "SGD", "learning_rate": {"class": ["x"]}}}},
        {"config": {"seed": "three", "batch_size": 16}},
        {"config": {"seed": 3, "batch_size": -16}},
        {"made_by": "someone"},
    ],
)
def test_a_damaged_record_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    x, y = subjects.two_inputs_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfmb.fit(subjects.two_inputs(), x, y, batch_size=16, seed=5, run_dir=tmp_path / "run", verbose=0)
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))

    def read() -> None:
        subject = read_subject(tmp_path / "run", "subjects:two_inputs", "subjects:two_inputs_data", None, STEPS)
        subject.make_optimizer(subject.make_model(None))

    with pytest.raises(DataError, match=r"makes? no sense|damaged"):
        read()


@pytest.mark.parametrize(
    ("optimizer", "what"),
    [
        (Adam(0.01, use_ema=True), "Keras's own Adam"),
        (Adam(0.01, epsilon_hat=False), "our Adam in Keras"),
        (SGD(0.1, momentum=0.9), "Keras's own SGD"),
        (SGD(schedules.Step(0.1, 2), momentum=0.9), "our SGD in Keras"),
        (SGD(schedules.Step(0.1, 2), momentum=0.9, rate_in_velocity=True), "Keras's own SGD"),
    ],
)
def test_counterparts(optimizer: Any, what: str) -> None:
    made, named = counterpart.keras_counterpart(optimizer)
    assert named == what
    assert isinstance(made, keras.optimizers.Optimizer)
    assert made.use_ema == optimizer.use_ema


def test_keras_takes_repeated_rows_of_sparse_gradients_apart() -> None:
    # Why the counterpart of a model with an embedding gets dense ones; when Keras is mended, both are right.
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [-2.5]]), tf.constant([0, 0, 0]), tf.constant([3, 1]))
    moved = []
    for dense in (False, True):
        variable, theirs = keras.Variable(np.zeros((3, 1))), keras.optimizers.Adam(0.1, epsilon=0.0)
        if dense:
            counterpart.apply_dense_gradients(theirs)
        theirs.apply([rows], [variable])
        moved.append(float(variable.numpy()[0, 0]))
    assert moved[1] == pytest.approx(-0.1, rel=1e-4)  # the first update of Adam: the rate, whatever the gradient
    assert moved[0] == pytest.approx(-0.1 * 0.5 / np.sqrt(1 + 4 + 6.25), rel=1e-4)


@pytest.mark.slow
def test_the_command_in_processes_of_their_own(tmp_path: Path) -> None:
    done = tfmb_command(*subjects.train_options("tabular"), "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = tfmb_command("verify", "run", *subjects.own("tabular"), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert [check["status"] for check in report["checks"]] == ["passed"] * 5
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    unnamed = tfmb_command("verify", "run", cwd=tmp_path)
    assert unnamed.returncode == 2
    assert "give --model module:function" in unnamed.stderr
