"""`tfmb run`: Keras programs of which no line was changed, beside the same under `python`."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Commands

from tfmb.cli import main

pytestmark = pytest.mark.usefixtures("fresh_keras")

PROGRAM = """\
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np

assert "tensorflow" in sys.modules
print("started", *sys.argv[1:], flush=True)
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).normal(size=(64, 6))
y = (x.sum(1) > 0).astype("int64")


def build():
    keras.config.set_floatx("float64")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
        if os.environ.get("KILL") == f"{self.name}:{epoch}":
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))


def train(name, **given):
    model = build()
    slow = Slow()
    slow.name = name
    history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[slow], **given)
    print(name, [round(loss, 9) for loss in history.history["loss"]], flush=True)
    return model


if __name__ == "__main__":
    first = train("first")
    second = train("second", validation_split=0.25)
    print("evaluate", *(round(value, 9) for value in second.evaluate(x, y, verbose=0)))
    print("predict", np.round(second.predict(x[:2], verbose=0), 9).tolist())
    print("weights", sum(float(abs(w).sum()) for w in first.get_weights()).__round__(9))
    sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
REFUSED = """class Own(keras.Sequential): make_train_function = lambda s, *a: keras.Model.make_train_function(s, *a)
model = Own([keras.layers.Dense(3)]); model.compile("sgd", "mse"); model.fit(x, x[:, :3], verbose=0)
print('done')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "refused.py").write_text(f"from program import *\n{REFUSED}")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "program.py").write_text(PROGRAM)
    return tmp_path


def ended(words: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.process
@pytest.mark.sample
def test_a_program_does_what_it_does_under_python_and_goes_on_after_a_kill(folder: Path) -> None:
    command = ["-m", "tfmb", "run", "--run-dir", "runs/a", "program.py", "5", "--help"]
    killed = ended(command, folder, KILL="second:1", SIGNAL=str(int(signal.SIGKILL)))
    assert killed.returncode == -signal.SIGKILL
    ours = ended(command, folder)
    theirs = ended(["program.py", "5", "--help"], folder)
    assert ours.returncode == theirs.returncode == 5
    assert lines(ours.stdout) == lines(theirs.stdout)
    assert told(ours.stderr) == told(theirs.stderr) == []
    assert sorted(path.name for path in (folder / "runs" / "a").iterdir()) == ["fit-1", "fit-2"]


def lines(text: str) -> list[str]:
    """Without those of epochs, which are not made again."""
    return [line for line in text.splitlines() if not line.startswith("epoch")]


def told(text: str) -> list[str]:
    """Without what TensorFlow's runtime writes while it starts."""
    return [line for line in text.splitlines() if not re.match(r"WARNING: All log|[IWE]\d{4} ", line)]


@pytest.mark.process
def test_a_signal_saves_the_run_and_the_same_command_goes_on(folder: Path, commands: Commands) -> None:
    command = ["run", "--run-dir", "runs/a", "--checkpoint-every", "3", "program.py"]
    expected = commands("run", "--run-dir", "runs/b", "program.py", cwd=folder)
    assert expected.returncode == 0, expected.stderr
    stopped = commands(*command, cwd=folder, KILL="first:1", SIGNAL=str(int(signal.SIGTERM)))
    assert stopped.returncode == 75, stopped.stderr
    last = stopped.stderr.splitlines()[-1]
    assert last.startswith("tfmb: error[75]: SIGTERM: stopped after")
    assert last.endswith("go on with the same command")
    done = commands(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == lines(expected.stdout)
    listed = commands("list", "runs/a", cwd=folder)
    assert "runs/a/fit-1" in listed.stdout
    assert "runs/a/fit-2" in listed.stdout


@pytest.mark.process
def test_a_module(folder: Path, commands: Commands) -> None:
    done = commands("run", "--seed", "3", "-m", "package.program", "--", "-m", cwd=folder)
    assert "started -- -m" in done.stdout
    assert "invalid literal for int()" in done.stderr  # the program's own error
    done = commands("run", "--virtual-replicas", "2", "-m", "package.program", "4", cwd=folder)
    assert done.returncode == 4, done.stderr


@pytest.mark.process
def test_what_is_refused_says_why_or_with_strict_ends(folder: Path, commands: Commands) -> None:
    done = commands("run", "refused.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\ndone\n"
    (line,) = told(done.stderr)
    assert line.startswith("tfmb: refused.py:3: Keras's own fit: Own has a make_train_function of its own")
    strict = commands("run", "--strict", "refused.py", cwd=folder)
    assert strict.returncode == 2
    assert 'refused.py", line 3, in <module>' in strict.stderr
    assert "ConfigError: Own has a make_train_function" in strict.stderr
    alone = ended(["-m", "tfmb", "run", "--strategy", "multi-worker", "program.py"], folder)
    (line,) = told(alone.stderr)  # no line of the program's: an option's fault
    assert line.startswith("tfmb: error[2]: strategy 'multi-worker' needs TF_CONFIG")


PREPARATIONS = {
    "devices": "import keras, tensorflow as tf\n"
    "cpu = tf.config.list_physical_devices('CPU')[0]\n"
    "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)\n"
    "assert len(tf.config.list_logical_devices('CPU')) == 3\n",
    "replicas": "import keras, tensorflow as tf\nassert len(tf.config.list_logical_devices('CPU')) == 2\n",
    "tf.keras": "import tensorflow as tf\ntf.keras.Model\nimport keras\n",
}


@pytest.mark.process
@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_a_program_prepares_tensorflow_as_it_likes(preparation: str, folder: Path) -> None:
    """The methods are replaced when it imports Keras, and TensorFlow is not started before it starts it."""
    code = f"{PREPARATIONS[preparation]}print(keras.Model.fit.__globals__['__name__'])\n"
    (folder / "prepares.py").write_text(code)
    options = ["--devices", "2"] if preparation == "replicas" else []
    done = ended(["-m", "tfmb", "run", *options, "prepares.py"], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tfmb.patching.keras_patch\n"


@pytest.mark.process
def test_workers_train_together_and_go_on_together(folder: Path) -> None:
    """They are joined when the program imports Keras: it builds its models before it trains them."""
    alone = ended(["-m", "tfmb", "run", "program.py"], folder)
    launch = ["-m", "tfmb", "launch", "--workers", "2", "--", sys.executable, "-m", "tfmb", "run"]
    for _ in range(2):
        done = ended([*launch, "--seed", "1", "--run-dir", "runs/a", "program.py"], folder)
        assert done.returncode == 0, done.stderr
        for rank in ("[0] ", "[1] "):
            told = [line.removeprefix(rank) for line in done.stdout.splitlines() if line.startswith(rank)]
            assert lines("\n".join(told)) == lines(alone.stdout)


@pytest.mark.process
@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_another_keras_stays_what_it_is(name: str, folder: Path) -> None:
    (folder / f"{name}.py").write_text("class config:\n    def backend():\n        return 'jax'\n")
    (folder / "other.py").write_text(f"import {name}\nprint('done')\n")
    done = ended(["-m", "tfmb", "run", "other.py"], folder)
    assert (done.returncode, done.stdout) == (0, "done\n")
    reason = "Keras's backend is jax" if name == "keras" else "tf_keras is Keras 2"
    assert done.stderr.startswith(f"tfmb: fit, evaluate and predict stay Keras's own: {reason}, and tfmb needs ")
    strict = ended(["-m", "tfmb", "run", "--strict", "other.py"], folder)
    assert (strict.returncode, strict.stdout) == (2, "")
    assert "cannot be replaced" in strict.stderr


@pytest.mark.process
def test_control_c_is_the_programs_where_there_is_no_run(folder: Path) -> None:
    (folder / "waits.py").write_text(
        "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught')\n"
    )
    command = [sys.executable, "-m", "tfmb", "run", "waits.py"]
    # A shell starts what it runs in the background with SIGINT ignored, and so on down to here.
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, preexec_fn=listens) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=30)[0] == b"caught\n"
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--virtual-replicas 3", ["--virtual-replicas", "3", "x.py"]),
        ("--devices 3 does not divide", ["--virtual-replicas", "2", "--devices", "3", "x.py"]),
        ("--checkpoint-every needs --run-dir", ["--checkpoint-every", "7", "x.py"]),
        ("--on-divergence needs --run-dir", ["--on-divergence", "restore", "x.py"]),
        ("unknown --strategy", ["--strategy", "all", "x.py"]),
        ("--seed -1", ["--seed", "-1", "x.py"]),
        ("No such option", ["--epochs", "3", "x.py"]),
        ("Missing argument", ["--strict"]),
    ],
)
def test_bad_options_get_one_line(words: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert not out
    assert err.startswith("tfmb: error[2]: ")
    assert err.count("\n") == 1
    assert words in err


def test_workers_that_are_not_there_get_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an option's fault, and of no line of the program."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(SystemExit) as ended:  # where Keras was imported before
        main(["run", "--strategy", "multi-worker", str(folder / "program.py")])
    (line,) = told(capsys.readouterr().err)
    assert line.startswith("tfmb: error[2]: strategy 'multi-worker' needs TF_CONFIG")
    assert ended.value.code == 2


def test_a_run_is_no_folder_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["run", "--run-dir", str(tmp_path), "x.py"])
    assert ended.value.code == 73
    assert "is a run itself" in capsys.readouterr().err


def test_in_another_programs_process_all_is_afterwards_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.py").write_text(
        "import sys, keras\nprint(sys.argv, __name__, keras.Model.fit.__globals__['__name__'])\n"
    )
    Path("fails.py").write_text("import sys\nsys.excepthook = sys.argv = None\n1 / 0\n")

    def state() -> tuple[object, ...]:
        main_module = sys.modules["__main__"]
        return sys.excepthook, sys.argv, [*sys.path], main_module, [*sys.meta_path], keras_fit()

    def keras_fit() -> object:
        from tfmb.backend import keras

        return keras.Model.fit

    before = state()
    assert main(["run", "small.py", "a"]) == 0
    assert capsys.readouterr().out == "['small.py', 'a'] __main__ tfmb.patching.keras_patch\n"
    with pytest.raises(ZeroDivisionError):
        main(["run", "fails.py"])
    assert state() == before


def test_the_old_name_of_list_says_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["runs"], ["runs", "--json"], ["runs", "a", "--nothing"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err == "tfmb: error[2]: `tfmb runs` is called `tfmb list` now\n"
