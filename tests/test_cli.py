"""The command line: once as a user meets it, else in forked processes, and quickly in this one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Commands

from tfmb.cli import main, threads

pytestmark = pytest.mark.usefixtures("fresh_keras")


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Checks that a command ended with one line on standard error and nothing else; returns the line."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"tfmb: error[{code}]: ")
    assert not done.stdout
    return lines[0]


SMALL = ["--dataset", "digits", "--model", "mlp", "--epochs", "2", "--validation-size", "100"]


def in_an_interpreter(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tfmb", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.process
@pytest.mark.sample
def test_train_evaluate_export_predict_as_a_user_meets_them(tmp_path: Path) -> None:
    trained = in_an_interpreter("train", *SMALL, "--run-dir", "runs/a", "--json", cwd=tmp_path)
    lines = trained.stderr.splitlines()
    assert all(line.startswith(("tfmb: ", "epoch ")) for line in lines), trained.stderr  # our words only
    result = json.loads(trained.stdout)
    found = json.loads(in_an_interpreter("evaluate", "runs/a", "--json", cwd=tmp_path).stdout)
    assert found["weights_sha256"] == result["weights_sha256"]
    assert found["test_accuracy"] == result["test_accuracy"] > 0.5
    version = in_an_interpreter("export", "runs/a", cwd=tmp_path).stdout.strip()
    assert version == "saved_models/a/1"
    assert (tmp_path / version / "saved_model.pb").is_file()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> tuple[Path, dict[str, Any], str]:
    """A finished run on digits: the folder it was made in, the line of JSON, and standard error."""
    folder = tmp_path_factory.mktemp("work")
    done = commands("train", *SMALL, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["list"], ["run", "--help"]])
def test_no_tensorflow_for_a_word_of_help(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from tfmb.cli import main; code = main(sys.argv[1:]); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_train_answers_in_json(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, messages = run
    needed = "dataset test_accuracy test_loss examples_per_second seconds updates run_dir weights_sha256"
    assert set(needed.split()) <= set(result)
    assert result["dataset"] == "digits"
    assert result["updates"] == 2 * -(-1337 // 64)
    assert result["test_accuracy"] > 0.5
    assert 0 < result["val_loss"] < 2.5
    assert "1,337 train, 100 for validation, 360 test examples" in messages
    assert (folder / result["run_dir"]).is_dir()


def test_the_run_directory_holds_the_record(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _ = run
    path = folder / result["run_dir"]
    record = json.loads((path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["batch_size"] == 64
    assert record["config"]["epochs"] == 2
    assert {"versions", "strategy", "data", "optimizer", "model"} <= set(record)
    assert record["weights_sha256"] == result["weights_sha256"]
    assert (path / "weights.npz").is_file()
    assert list((path / "tensorboard").rglob("events.out.tfevents.*"))
    assert "second" not in (path / "metrics.jsonl").read_text()
    assert all("examples_per_second" in line for line in (path / "timings.jsonl").read_text().splitlines())


@pytest.mark.compile
def test_evaluate_finds_what_train_found(run: tuple[Path, dict[str, Any], str], commands: Commands) -> None:
    folder, result, _ = run
    done = commands("evaluate", result["run_dir"], "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key in ("dataset", "test_accuracy", "updates", "run_dir", "weights_sha256"):
        assert found[key] == result[key]
    assert found["test_loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert {"examples_per_second", "seconds"} <= set(found)


@pytest.mark.process
def test_export_then_predict(run: tuple[Path, dict[str, Any], str], commands: Commands) -> None:
    folder, result, _ = run
    exported = commands("export", result["run_dir"], cwd=folder)
    assert exported.returncode == 0, exported.stderr
    version = exported.stdout.strip()
    assert version == f"saved_models/{Path(result['run_dir']).name}/1"
    by_run = commands("predict", "test:0", "train:3", "--json", cwd=folder)  # the newest run
    assert by_run.returncode == 0, by_run.stderr
    answers = [json.loads(line) for line in by_run.stdout.splitlines()]
    assert [answer["image"] for answer in answers] == ["test:0", "train:3"]
    assert all(0 < answer["probability"] <= 1 and 0 <= answer["label"] < 10 for answer in answers)
    assert f"model of {result['run_dir']}" in by_run.stderr
    no_data = commands("predict", "test:0", "--run", version, cwd=folder)
    assert "an export has no data" in refused(no_data, 2)


def test_list_shows_runs_and_compares_them(
    run: tuple[Path, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, result, _ = run
    monkeypatch.chdir(folder)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert result["run_dir"] in text
    assert f"{result['test_accuracy']:.4g}" in text
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"] == "digits"


@pytest.mark.compile
def test_list_shows_a_schedule_by_its_name_and_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--dataset", "digits", "--model", "mlp", "--epochs", "1", "--schedule", "cosine,warmup=5"]
    assert main(["train", *small, "--learning-rate", "0.003", "--run-dir", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["list", str(tmp_path / "run")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert "  Warmup Cosine 0.003  " in row
    assert main(["list", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learning_rate"]["schedule"]["over"] > 0


def test_a_directory_with_a_run_is_refused(run: tuple[Path, dict[str, Any], str], commands: Commands) -> None:
    folder, result, _ = run
    before = {path: path.stat().st_mtime_ns for path in (folder / result["run_dir"]).rglob("*")}
    done = commands("train", "--dataset", "digits", "--run-dir", result["run_dir"], cwd=folder)
    assert "holds a run already" in refused(done, 73)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / result["run_dir"]).rglob("*")}


BAD = {
    "batch size 0": (["--batch-size", "0"], 2, "--batch-size 0"),
    "batch size -1": (["--batch-size", "-1"], 2, "--batch-size -1"),
    "batch size text": (["--batch-size", "many"], 2, "--batch-size 'many'"),
    "mirror of own data": (["--dataset", "a:b", "--mirror", "x"], 2, "--mirror x holds files of TFDS"),
    "optimizer": (["--optimizer", "lion"], 2, "unknown --optimizer 'lion'"),
    "strategy": (["--strategy", "everywhere"], 2, "unknown --strategy 'everywhere'"),
    "learning rate": (["--learning-rate", "nan"], 2, "--learning-rate"),
    "not a number": (["--epochs", "three"], 2, "epochs"),
    "no such option": (["--epoch-count", "3"], 2, "--epoch-count"),
    "model": (["--model", "transformer"], 2, "unknown --model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_get_one_line(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments, code, words = BAD[case]
    with pytest.raises(SystemExit) as ended:
        main(["train", "--run-dir", str(tmp_path / "run"), *arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == code
    assert not out
    assert err.startswith(f"tfmb: error[{code}]: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "run").exists()


LATE = {
    "larger than the data": (["--dataset", "digits", "--batch-size", "1438"], 2, "larger than the data (1437"),
    "unknown dataset": (["--dataset", "no_such_set"], 2, "unknown dataset 'no_such_set'"),
    "missing folder": (["--dataset", "./nowhere"], 65, "nowhere: no such folder"),
    "missing mirror": (["--dataset", "mnist", "--mirror", "./nowhere"], 65, "nowhere: no such folder"),
    "missing module": (["--dataset", "nowhere:load"], 2, "no module 'nowhere'"),
    "validation too large": (["--dataset", "digits", "--validation-size", "1437"], 2, "validation size 1437"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_only_the_data_can_tell_gets_one_line_too(
    case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, code, words = LATE[case]
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == code
    assert not out
    assert err.count("\n") == 1
    assert words in err
    assert not list(tmp_path.iterdir())


def test_a_diverging_run_ends_with_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ["--dataset", "digits", "--model", "mlp", "--optimizer", "sgd", "--learning-rate", "1e30"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments, "--epochs", "1", "--run-dir", str(run_dir)])
    out, err = capsys.readouterr()
    assert ended.value.code == 3
    assert not out
    last = err.strip().splitlines()[-1]
    assert last.startswith("tfmb: error[3]: update ")
    assert "learning rate 1e+30" in last
    assert json.loads((run_dir / "run.json").read_text())["status"] == "diverged"


@pytest.mark.process
def test_your_own_model_and_data(tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras, numpy as np\n"
        "def load():\n"
        "    x = np.random.default_rng(0).normal(size=(300, 4)).astype('float32')\n"
        "    y = (x.sum(axis=1) > 0).astype('int64')\n"
        "    return (x[:200], y[:200]), (x[200:], y[200:])\n"
        "def build():\n"
        "    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)\n"
        "    model.compile(keras.optimizers.Adam(0.05), loss=loss, metrics=['accuracy'])\n"
        "    return model\n"
    )
    own = ["--dataset", "mine:load", "--model", "mine:build"]
    done = commands("train", *own, "--batch-size", "32", "--json", "--run-dir", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_accuracy"] > 0.9
    unnamed = commands("evaluate", "r", cwd=tmp_path)
    assert "give --model module:function" in refused(unnamed, 2)
    again = commands("evaluate", "r", *own, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_accuracy"] == json.loads(done.stdout)["test_accuracy"]
    exported = commands("export", "r", "--model", "mine:build", "--json", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr


@pytest.mark.compile
def test_auto_without_network_says_that_it_took_digits(tmp_path: Path, commands: Commands) -> None:
    caches = {"TFMB_CACHE": str(tmp_path / "c"), "TFDS_DATA_DIR": str(tmp_path / "t")}
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = commands("train", "--model", "mlp", "--epochs", "1", "--json", cwd=tmp_path, **caches, **nowhere)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset"] == "digits"
    assert "auto: MNIST is neither cached nor mirrored" in result["dataset_origin"]
    assert "auto: MNIST is neither cached nor mirrored" in done.stderr.splitlines()[0]
    record = json.loads((tmp_path / result["run_dir"] / "run.json").read_text())
    assert "auto: MNIST is neither" in record["data"]["origin"]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["versions", "machine", "devices", "cluster", "extras", "data", "warnings"]
    assert report["machine"]["processor"] not in ("", "x86_64")
    assert report["cluster"] == {"TF_CONFIG": "not set", "Slurm": "no job"}
    assert {"bench", "docs", "test"} <= set(report["extras"])
    assert "CPU:0" in report["devices"]["physical"]


@pytest.mark.compile
def test_doctor_times_the_parts_of_an_update(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    assert main(["doctor", "--profile", "--model", "mlp", "--batch-size", "32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"of: mlp, batch 32\n  an update: [\d.]+ ms, [\d,]+ examples/s\n  with 1 thread", out)
    assert re.search(r"\n  with 1 thread\(s\): [\d.]+ ms\n  input: [\d.]+ ms, \d+%\n", out)
    assert re.search(r"advice: .*(--|arrays|replicas)", out)
    assert "seconds:" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["--resume", "\x1b[2J\u202e"], 65, r"\\x1b\[2J\\u202e holds no run"),
        (["--run-dir", "x" * 300], 73, "cannot be made .File name too long"),
    ],
)
def test_odd_names_are_shown_plainly(
    arguments: list[str], code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    assert ended.value.code == code
    assert re.search(shown, capsys.readouterr().err)
