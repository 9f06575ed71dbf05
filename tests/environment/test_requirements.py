"""What a command needs at its end is asked for at its start, and an answer is printed before a page is written."""

import ast
import configparser
import importlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.cli import main
from tfmb.environment import requirements
from tfmb.errors import ConfigError, DataError, DirectoryError, StorageError

ROOT = Path(__file__).parents[2]
X = np.zeros((60, 3), "float32")
Y = np.zeros(60, "int64")
STARTS = ("train", "advise", "tune", "verify", "models", "doctor")


@pytest.fixture(autouse=True)
def _nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory with a plain file `file`; a command that starts TensorFlow has begun its work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in STARTS:
        monkeypatch.setattr(importlib.import_module(f"tfmb.cli.{name}"), "start_tensorflow", _begun)


def _begun(*_: Any, **__: Any) -> None:
    raise AssertionError("the work was begun")


def model(hp: Any = None) -> Any:
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    built.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


def refused(code: int, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ended with a code."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1, err
    assert err.startswith(f"tfmb: error[{code}]: "), err
    assert ended.value.code == code
    return err


MEASURE = {
    "advise": ["advise", "--dataset", "digits"],
    "lr-range": ["lr-range", "--dataset", "digits"],
    "compare": ["advise", "--compare", "--dataset", "digits"],
}


@pytest.mark.parametrize("words", [*MEASURE.values(), ["tune"]], ids=[*MEASURE, "tune"])
def test_plotly_is_asked_for_before_anything_is_measured(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    page = [] if words == ["tune"] else ["--html", "page.html"]
    assert "pip install plotly" in refused(2, *words, *page, capsys=capsys)
    if page:
        with pytest.raises(AssertionError, match="the work was begun"):
            main(words)  # without a page it is not needed


@pytest.mark.parametrize("words", MEASURE.values(), ids=MEASURE)
@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("", "'' names no file"),
        (".", "is no file"),
        ("missing/page.html", "cannot be written (No such file or directory)"),
        ("file/page.html", "cannot be written (Not a directory)"),
        ("x" * 300 + ".html", "File name too long"),
        ("a\0b/page.html", "null"),
    ],
)
def test_a_page_has_a_place_before_anything_is_measured(
    words: list[str], page: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refused(2, *words, "--html", page, capsys=capsys)
    assert "--html" in line
    assert said in line
    assert "advice.html" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (73, ["train", "--run-dir", "file/run"], "file/run cannot be made or written (Not a directory): give another"),
        (73, ["tune", "--run-dir", "file/search"], "file/search cannot be made or written"),
        (2, ["tune", "--retrain", "1,epochs=0"], "--retrain epochs='0' must be an integer at least 1"),
        (2, ["tune", "--retrain", "1", "--model", "mine:build"], "--retrain trains our models"),
        (73, ["export", "run", "--output", "file/model"], "file/model cannot be made or written"),
        (2, ["export", "run", "--against", "latest"], "holds no version yet"),
        (65, ["export", "run", "--against", "missing"], "missing holds no SavedModel"),
        (65, ["export", "missing"], "missing holds no run"),
        (65, ["verify", "export", "missing"], "missing holds no run"),
        (2, ["launch", "--workers", "2", "--", "missing-program"], "missing-program cannot be started"),
    ],
)
def test_places_and_sources_are_looked_at_first(
    code: int, words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"config": {}}))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_text("")
    assert said in refused(code, *words, capsys=capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run", "export"}


def test_the_default_places_are_looked_at_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("runs", "saved_models"):
        (tmp_path / name).write_text("a file")
    assert "runs cannot be made or written" in refused(73, "train", capsys=capsys)
    assert "runs/search-1 cannot be made or written" in refused(73, "tune", capsys=capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"config": {}}))
    assert "saved_models/run cannot be made or written" in refused(73, "export", "run", capsys=capsys)


def test_images_are_looked_for_before_a_model_is_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tfmb.cli.models.start_tensorflow", lambda: None)
    monkeypatch.setattr("tfmb.jobs.restore.restore_run", _begun)
    (tmp_path / "run").mkdir()
    line = refused(65, "predict", "--run", "run", "file", "test:0", "missing.png", capsys=capsys)
    assert "missing.png cannot be read (No such file or directory)" in line
    assert "run cannot be read (Is a directory)" in refused(65, "predict", "--run", "run", "run", capsys=capsys)


def test_a_search_in_python_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmb.tuning.arguments.to_source", _begun)
    with pytest.raises(
        DirectoryError, match=r"file/s cannot be made or written \(Not a directory\): give another run_"
    ):
        tfmb.tune(model, X, Y, run_dir="file/s")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ConfigError, match="pip install plotly"):
        tfmb.tune(model, X, Y)


def test_an_export_in_python_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmb.serving.export.ServedModel", _begun)
    with pytest.raises(DirectoryError, match="file/model cannot be made or written"):
        tfmb.export(model(), "file/model")


def test_the_run_of_an_export_is_read_before_the_export_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tfmb.verification import exports

    monkeypatch.setattr(exports, "_answers", _begun)
    (tmp_path / "saved_model.pb").write_text("")
    with pytest.raises(DataError, match="missing holds no run"):
        exports.verify_export(tmp_path, "missing")


def test_a_place_that_is_good_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_text("old")
    assert requirements.need_page("--html", "old.html") == Path("old.html")
    requirements.need_folder("--run-dir", "a/b/c")
    requirements.need_folder("--run-dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "old.html"}
    assert (tmp_path / "old.html").read_text() == "old"


def _no_page(*_: Any) -> None:
    raise StorageError("the page page.html cannot be written (No space left on device): give another place")


def _ended_with_its_answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    assert ended.value.code == 74
    assert err.splitlines()[-1].startswith("tfmb: error[74]: the page page.html cannot be written")
    return out


@pytest.mark.parametrize("json_line", [False, True])
def test_an_answer_is_there_before_the_page(
    json_line: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.import_module("tfmb.cli.advise"), "start_tensorflow", lambda: None)
    data = SimpleNamespace(train=SimpleNamespace(size=100))
    monkeypatch.setattr("tfmb.advice.jobs.problem_of", lambda config: (data, ""))
    extra = ["--html", "page.html", *(["--json"] if json_line else [])]

    advice = SimpleNamespace(
        batch_size=None,
        reason="undetermined: the answer",
        record=lambda: {"reason": "the answer"},
        extras=(),
        predictions=(),
    )
    monkeypatch.setattr("tfmb.advice.advise.advise_on", lambda *_, **__: advice)
    monkeypatch.setattr("tfmb.advice.pages.write_advice", _no_page)
    assert "the answer" in _ended_with_its_answer(capsys, "advise", *extra)

    from tfmb.advice.rate_curve import read_curve

    losses = [2.0] * 20 + list(np.linspace(2.0, 0.5, 80)) + [9.0] * 20
    curve = read_curve(list(np.geomspace(1e-6, 10, 120)), losses)
    monkeypatch.setattr("tfmb.advice.short_runs.ShortRuns", lambda problem: None)
    monkeypatch.setattr("tfmb.advice.lr_range.sweep", lambda *_: curve)
    monkeypatch.setattr("tfmb.advice.pages.write_rate_curve", _no_page)
    assert "steepest" in _ended_with_its_answer(capsys, "lr-range", *extra)

    found = SimpleNamespace(methods=(), record=lambda: {"gradient noise": 1})
    monkeypatch.setattr("tfmb.advice.compare.compare", lambda *_, **__: found)
    monkeypatch.setattr("tfmb.advice.compare_page.write_comparison", _no_page)
    assert "gradient noise" in _ended_with_its_answer(capsys, "advise", "--compare", *extra)


@pytest.mark.parametrize("json_line", [False, True])
def test_the_answer_of_a_search_is_there_before_its_page(
    json_line: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from searches import mixed

    monkeypatch.setattr(importlib.import_module("tfmb.cli.tune"), "start_tensorflow", lambda: None)
    record = mixed(5)

    def search_without_page(config: Any, plan: Any, folder: Any, say: Any, watch: Any, conclude: Any) -> Any:
        conclude(record)
        _no_page()

    monkeypatch.setattr("tfmb.tuning.job.tune_job", search_without_page)
    out = _ended_with_its_answer(capsys, "tune", *(["--json"] if json_line else []))
    assert out.count("\n") == 1
    assert record.best is not None
    assert (json.loads(out)["trial"] == record.best.trial) if json_line else out.startswith("best of 5 trials")


@pytest.mark.parametrize("fails", [False, True])
def test_a_search_concludes_before_it_writes_its_page(
    fails: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tfmb.tuning import run_search, tune

    order: list[str] = []
    monkeypatch.setattr(run_search, "write_report", lambda record, path: order.append(f"page of {len(record.trials)}"))

    def conclude(record: Any) -> None:
        order.append("answer")
        if fails:
            raise DataError("of the retraining")

    def search(*given: Any, **more: Any) -> Any:
        return search_in(*given, **more, conclude=conclude)

    search_in = tune.search_in
    monkeypatch.setattr(tune, "search_in", search)
    small: dict[str, Any] = {
        "max_trials": 1,
        "batch_size": [16],
        "learning_rate": [0.01],
        "run_dir": tmp_path / "s",
        "seed": 0,
    }
    if fails:
        with pytest.raises(DataError, match="of the retraining"):
            tfmb.tune(model, X, Y, **small)
    else:
        tfmb.tune(model, X, Y, **small)
    assert order == ["answer", "page of 1"]


def test_every_import_is_installed_with_the_package() -> None:
    """What README's first command installs is enough for every command; an extra is asked for by its name."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options"]["install_requires"].split()
    required = {re.split(r"[<>=!~;\[]", line)[0].lower().replace("_", "-") for line in lines if line[0] != "#"}
    extras = {
        "tuning/executors/on_dask.py": "distributed",
        "tuning/executors/on_ray.py": "ray",
        "tuning/oracles/tpe.py": "optuna",
    }
    ours = {"tfmb", *sys.stdlib_module_names}
    provides = metadata.packages_distributions()
    for path in [*(ROOT / "tfmb").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            where = str(path.relative_to(ROOT)).removeprefix("tfmb/") if "tuning" in path.parts else ""
            for module in {name.partition(".")[0] for name in names} - ours - {extras.get(where, "")}:
                packages = {name.lower().replace("_", "-") for name in provides.get(module, [module])}
                assert packages & required, f"{path.relative_to(ROOT)} imports {module}"
