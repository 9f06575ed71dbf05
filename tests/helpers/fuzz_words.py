"""Bad options and command lines, made from a seed: each refused in one line, before TensorFlow is imported."""

import contextlib
import dataclasses
import io
import json
import math
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.choices import MODEL_NAMES
from tfmb.cli import main
from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig

__all__ = ["KINDS", "batch"]

_FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**400, 0.0, -0.0, 0.5, 1.0, -0.1, 1e308, math.inf, -math.inf,
    math.nan, "", " ", "x", "adam", "full", "../x", "/", "a:b", "a:b:c", "-1", "\n", "\x1b[31m", "\ud800", "\u202e",
    "ä", "x" * 5000, b"x", [], [1], (1,), {}, {"x": 1}, 1j, object(), ..., int, [[[[[[[[[[]]]]]]]]]],
]  # fmt: skip

_COUNTS = ["epochs", "devices", "virtual-replicas", "micro-batch-size", "log-every"]
_COUNTS += ["checkpoint-every", "keep-checkpoints", "batch-size"]
_NATURALS = ["seed", "validation-size"]
# Arguments of a choice: (option, what stands before the value).
_ARGUMENTS = [
    *(("optimizer", f"adamw,{name}=") for name in ("weight_decay", "clipnorm", "clipvalue", "epsilon", "beta_1")),
    *(("optimizer", f"sgd,{name}=") for name in ("momentum", "global_clipnorm", "ema_momentum")),
    ("model", "cnn,dropout="), ("schedule", "cosine,warmup="), ("rate-scaling", "sqrt,base_batch_size="),
]  # fmt: skip
_CHOICES = ["model", "optimizer", "schedule", "precision", "strategy", "rate-scaling", "on-divergence", "jit-compile"]
_NO_NUMBER = ["x", "", " ", "1,5", "0x10", "--", "1e", "\x1b[31m", "\n", "ä", "'; rm", "9" * 40 + "x", "None", "[1]"]
_NO_COUNT = [*_NO_NUMBER, "-1", "1.5", "nan", "inf", "1e3", "9" * 40, "9" * 5000, "-" + "9" * 30]
_NO_WORD = ["nonsense", "", " ", "ADAM", "adam ", "\x1b[2J", "\n", "a\nb", "ä" * 300, "--", "..", "../../x", "\u202e"]
_TOGETHER = [
    ["--optimizer", "sgd,clipnorm=1,clipvalue=1"],
    ["--optimizer", "sgd,momentum=0.9,momentum=0.9"],
    ["--optimizer", "sgd,learning_rate=1"],
    ["--deterministic", "--jit-compile", "step"],
    ["--virtual-replicas", "2", "--micro-batch-size", "2"],
    ["--virtual-replicas", "3"],
    ["--strategy", "one-device", "--devices", "2"],
    ["--schedule", "plateau"],
    ["--on-divergence", "restore", "--schedule", "cosine"],
    ["--dataset", "a:b", "--mirror", "x"],
    ["--optimizer", "sgd,rho=0.5"],
    ["--optimizer", "adam,nesterov"],
    ["--rate-scaling", "sqrt"],
    ["--resume", "damaged", "--run-dir", "new"],
    ["--allow-mismatch"],
    ["--data", "a:b"],
    ["--momentum", "0.9"],
    ["--model", "a:b:c"],
    ["--model", "a:b,dropout=0.5"],
    ["--dataset", ""],
]
_PLACES = [
    "nowhere",
    "file",
    "pipe",
    "damaged",
    "empty",
    "file/below",
    "x" * 300,
    "x/" * 3000,
    "",
    "/",
    "\n",
    "\x1b[2J",
]
_OTHERS = [
    ["trian"], ["--unknown"], ["train", "more"], ["train", "--unknown", "1"], ["train", "--epochs"], ["train", "-x"],
    ["evaluate"], ["evaluate", "a", "b"], ["export"], ["predict"], ["predict", "x.png", "--run", "a", "--run", "b"],
    ["predict", "x.png"], ["list", "--unknown"], ["list", "nowhere"], ["launch"], ["doctor", "x"], [""], ["\x1b[2J"],
    ["runs"], ["run"], ["run", "--unknown", "x.py"], ["run", "--virtual-replicas", "3", "x.py"], ["run", "--seed"],
    ["run", "--allow-mismatch", "x.py"], ["run", "--checkpoint-every", "7", "x.py"], ["run", "--seed", "-1", "x.py"],
    ["run", "--on-divergence", "restore", "x.py"], ["run", "--run-dir", "damaged", "x.py"],
    ["launch", "--workers", "0", "--", "true"], ["launch", "--workers", "x", "--", "true"],
    ["launch", "--hosts", "", "--", "true"],
    ["launch", "--workers", "2", "--hosts", "a:1", "--", "true"], ["launch", "--hosts", "a:1,b:2", "--", "true"],
    ["launch", "--hosts", "a:1,b:2", "--index", "7", "--", "true"], ["--\n"], ["train", "--json=1"],
]  # fmt: skip


def batch(kind: str, first: int, count: int) -> None:
    """Prints a line for each seed: "refused", "equal", or what is wrong. In a process without TensorFlow."""
    signal.signal(signal.SIGALRM, _late)
    if kind == "command":
        _make_places()
    for seed in range(first, first + count):
        draw = random.Random(seed)
        signal.alarm(10)
        try:
            outcome = KINDS[kind](draw)
        except BaseException:
            outcome = f"WRONG: {' | '.join(traceback.format_exc().splitlines()[-9:])}"
        signal.alarm(0)
        print(f"{seed} {outcome}", flush=True)


class _HungError(BaseException):
    pass


def _late(*_: Any) -> None:
    raise _HungError


def _config(draw: random.Random) -> str:
    """Options with one to three odd values: refused, or kept and read back as they are."""
    given = {name: draw.choice(_VALUES) for name in draw.sample(_FIELDS, draw.choice([1, 1, 2, 3]))}
    try:
        config = TrainConfig(**given)
    except ConfigError as error:
        message = str(error)
        assert message, given
        assert "\n" not in message, given
        return "refused"
    kept = config.to_dict()
    assert all(kept[name] == given[name] or isinstance(given[name], str) for name in given), given
    assert TrainConfig.from_dict(json.loads(json.dumps(kept)), "here") == config, given
    return "equal"


def _make_places() -> None:
    Path("file").write_text("x")
    os.mkfifo("pipe")
    for name in ("damaged", "empty"):
        Path(name).mkdir()
    Path("damaged/run.json").write_text('{"config": {"epochs": ')


def _bad(draw: random.Random) -> list[str]:
    """A command line with one thing wrong in it."""
    match draw.randrange(9):
        case 0:
            return ["train", f"--{draw.choice(_COUNTS)}", draw.choice([*_NO_COUNT, "0"])]
        case 1:
            return ["train", f"--{draw.choice(_NATURALS)}", draw.choice(_NO_COUNT)]
        case 2:
            return ["train", "--learning-rate", draw.choice([*_NO_NUMBER, "nan", "inf", "-1", "1e400"])]
        case 3:
            name, before = draw.choice(_ARGUMENTS)
            return ["train", f"--{name}", before + draw.choice([*_NO_NUMBER, "nan", "inf", "-1", "1e400", "1,"])]
        case 4:
            return ["train", f"--{draw.choice(_CHOICES)}", draw.choice(_NO_WORD)]
        case 5:
            return ["train", *draw.choice(_TOGETHER)]
        case 6:
            return ["train", "--resume", draw.choice(_PLACES)]
        case 7:
            return ["train", "--run-dir", draw.choice(["damaged", "damaged/../damaged", "x" * 300, "x/" * 3000])]
        case _:
            return draw.choice(_OTHERS)


def _good(draw: random.Random) -> list[str]:
    options = [["--epochs", "3"], ["--seed", "7"], ["--model", draw.choice(MODEL_NAMES)], ["--json"], ["--shuffle"]]
    return [word for option in draw.sample(options, draw.randrange(3)) for word in option]


def _command(draw: random.Random) -> str:
    words = _bad(draw)
    if words[0] == "train":
        good = [word for word in _good(draw) if word not in words]
        words = ["train", *good, *words[1:]] if draw.random() < 0.5 else [*words, *good]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else -1
    lines = err.getvalue().removesuffix("\n").split("\n")
    shown = (words if len(str(words)) < 300 else str(words)[:300], code, err.getvalue()[:500])
    assert code in (2, 65, 73), shown
    assert len(lines) == 1, shown
    assert lines[0].isprintable(), shown
    assert lines[0].startswith(f"tfmb: error[{code}]: "), shown
    assert not out.getvalue(), shown
    assert "tensorflow" not in sys.modules, shown
    return "refused"


KINDS: dict[str, Callable[[random.Random], str]] = {"config": _config, "command": _command}

if __name__ == "__main__":
    batch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
