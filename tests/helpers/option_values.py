"""Values for every option of the command line, by its name: a new option without any fails a test.

The options themselves, and what kind of value each takes, are read from the commands.
"""

import random
from collections.abc import Iterator
from typing import Any

import typer

from tfmb.cli import app

__all__ = ["COMMANDS", "VALUES", "draw", "key", "one_by_one", "values_of"]

# A group, which typer's types call a command.
COMMANDS: dict[str, Any] = dict(sorted(typer.main.get_command(app).commands.items()))  # type: ignore[attr-defined]

_OURS, _OWN, _MADE = "option_subjects:load", "option_subjects:build", "option_subjects:build_searched"
_RATE = ["0.01", "0.1", "0.001"]
# By the option's name; by COMMAND.NAME where it means something else there. Flags have none.
VALUES: dict[str, list[str]] = {
    "against": ["latest", "exports/ours/1", "1", "latest,made_up"],
    "augment": ["shift=1", "rotate=10,erase=0.2"],
    "arguments": ["one"],
    "batch_size": ["8", "16", "7"],
    "train.batch_size": ["8", "16", "7", "full"],
    "tune.epochs": ["0.5", "1"],
    "tune.batch_size": ["8", "8,16", "8:32"],
    "batch_sizes": ["4,8", "8", "4,8,16"],
    "budget": ["2s", "1", "0.1m"],
    "checkpoint_every": ["2", "3", "2,keep=1", "2,keep=3"],
    "command": ["true", "echo", "false"],
    "dataset": ["digits", "idx", "./idx", "auto", _OURS, "option_subjects:load_train", "option_subjects:load_table"],
    **{
        f"{command}.dataset": [_OURS, _OURS, "option_subjects:load_train", "option_subjects:load_table"]
        for command in ("evaluate", "export", "predict", "verify")
    },
    "directories": ["runs", "runs/ours", "runs/cut"],
    "epochs": ["1", "2"],
    "executor": ["dask:nowhere", "dask:", "slurm:here"],
    "hosts": ["127.0.0.1:12345", "127.0.0.1:12345,127.0.0.1:12346"],
    "html": ["page.html", "nowhere/page.html"],
    "images": ["grey.png", "colour.jpg", "test:0", "train:3"],
    "index": ["0", "1"],
    "jit_compile": ["nothing", "update", "gradients", "step", "auto"],
    "learning_rate": _RATE,
    "learning_rates": ["0.0001:1", "0.001:0.5,updates=10", "0.001:0.5,updates=15"],
    "tune.learning_rate": ["0.01", "0.01,0.1", "0.001:0.1"],
    "log_every": ["1", "3"],
    "max_trials": ["1", "2"],
    "micro_batch_size": ["4", "2"],
    "mirror": ["mirror", "idx"],
    "model": ["mlp", "mlp,dropout=0.5", "cnn", _OWN],
    "tune.model": ["mlp", "mlp", _MADE, _OWN],
    "verify.model": [_OWN, "loops:build", "mlp"],
    "objective": ["val_loss", "val_accuracy", "min:val_loss", "updates:val_loss<=1", "val_loss,executions=2"],
    "on_divergence": ["skip", "restore", "stop"],
    "optimizer": [
        *("sgd", "momentum", "rmsprop", "adam", "adamw", "sgd,momentum=0.5", "rmsprop,rho=0.5", "rmsprop,centered"),
        *("momentum,nesterov", "adam,beta_1=0.8", "adamw,beta_2=0.9", "adam,amsgrad", "adam,epsilon=0.001"),
        *("adamw,weight_decay=0.1", "sgd,clipnorm=0.01", "sgd,clipvalue=0.001", "adam,global_clipnorm=0.01"),
        "adam,ema_momentum=0.9",
    ],
    "oracle": ["random", "grid", "bayesian", "hyperband", "random,no_pruning", "bayesian,round_size=2"],
    "output": ["new", "exports/ours"],
    "precision": ["float64", "mixed_bfloat16", "mixed_float16", "float32"],
    "program": ["program.py"],
    "rate_scaling": ["sqrt,base_batch_size=32", "linear,base_batch_size=8"],
    "recipe": ["fast", "reference"],
    "devices": ["2", "1"],
    "restarts": ["1"],
    "resume": ["runs/cut", "runs/ours"],
    "retrain": ["1", "2", "1,epochs=1"],
    "run": ["runs/ours", "runs/ours", "runs/own", "runs/ema", "runs/digits", "runs/cut"],
    "predict.run": ["runs/ours", "runs/own", "runs/ema", "runs/digits", "runs/cut", "exports/ours", "exports/ours/1"],
    "run_dir": ["runs/new", "new"],
    "tune.run_dir": ["search", "new"],
    "search": [
        *("dropout=0.1,0.3", "dropout=0.1:0.4", "warmup=1", "weight_decay=0.001:0.1", "momentum=0.5", "beta_1=0"),
        *("optimizer=sgd", "optimizer=rmsprop,adam", "schedule=cosine", "schedule=constant,cosine", "augment=shift=1"),
        "rate_scaling=sqrt,base_batch_size=32",
    ],
    "schedule": ["cosine", "cosine,warmup=3", "step", "exponential", "polynomial", "one-cycle", "plateau"],
    "seed": ["1", "7"],
    "strategy": ["one-device", "mirrored", "auto", "multi-worker"],
    "target": ["val_accuracy>=0.5", "val_loss<=1", "loss<=1.05"],
    "targets": ["runs/ours", "runs/own", "exports/ours", "exports/ours/1", "option_subjects:by_hand", "runs/cut"],
    "threads": ["1", "2"],
    "timeout": ["5s", "1m"],
    "validation_size": ["10", "20"],
    "virtual_replicas": ["2", "4"],
    "weights": ["ema", "raw"],
    "workers": ["1", "2"],
}
# What makes most command lines work, and short: of each list one, mostly. Words without an option are arguments.
_DATA, _SEARCHED = ["--dataset", _OURS], ["--model", _MADE]
_USUAL: dict[str, list[list[list[str]]]] = {
    "train": [
        [_DATA, _DATA, ["--dataset", "idx"], ["--resume", "runs/cut"]],
        [["--model", "mlp"], ["--model", "mlp"], ["--model", _OWN]],
        [["--epochs", "2"]],
        [["--batch-size", "8"]],
    ],
    "lr-range": [[_DATA], [["--model", "mlp"], ["--model", _OWN]], [["--learning-rates", "0.0001:1,updates=10"]]],
    "advise": [
        [_DATA],
        [["--model", "mlp"]],
        [["--budget", "2s"], ["--budget", "1s"]],
        [["--batch-sizes", "4,8,16"], ["--batch-sizes", "4,8,16"], ["--compare", "--batch-sizes", "8"]],
    ],
    "tune": [
        [_DATA],
        [["--model", "mlp"], ["--model", "mlp"], _SEARCHED],
        [["--max-trials", "1"], ["--max-trials", "2"]],
        [["--batch-size", "16"], ["--batch-size", "8:16"]],
    ],
    "evaluate": [
        [["runs/ours", *_DATA], ["runs/own", *_DATA, "--model", _OWN], ["runs/ema", *_DATA], ["runs/digits"]],
    ],
    "export": [
        [["runs/ours"], ["runs/own", "--model", _OWN], ["runs/ema"], ["runs/digits"]],
        [["--output", "exports/ours"], ["--output", "new"]],
    ],
    "predict": [
        [
            ["grey.png", "--run", "runs/ours"],
            ["test:0", "colour.jpg", "--run", "runs/ours", *_DATA],
            ["train:3", "--run", "runs/digits"],
            ["grey.png", "colour.jpg", "--run", "exports/ours"],
            ["grey.png"],
        ]
    ],
    "verify": [
        [
            ["runs/ours", *_DATA],
            ["exports/ours"],
            ["exports/ours/1", "runs/ours"],
            ["option_subjects:by_hand", "--model", "loops:build", "--dataset", "loops:data"],
        ]
    ],
    "run": [[["program.py"], ["program.py", "one"], ["-m", "program"]]],
    "launch": [[["--workers", "2"], ["--workers", "1"], ["--hosts", "127.0.0.1:12345", "--index", "0"]]],
    "doctor": [[[], [], ["--profile", "--model", "mlp"]]],
}
# An option that decides what PROGRAM is: it stands in `_USUAL` with what it takes, and python's own words answer else.
_NOT_ALONE = {("run", "module")}
# Options of which one is enough, mostly.
_EITHER = [
    {"dataset", "mirror", "recipe", "resume"},
    {"workers", "hosts", "executor"},
    {"virtual_replicas", "micro_batch_size", "threads"},
    {"deterministic", "threads", "jit_compile"},
]
# What an option needs to be of use, mostly given with it.
_WITH: dict[str, list[str]] = {
    "hosts": ["--index", "0"],
    "compare": ["--batch-sizes", "8"],
    "index": ["--hosts", "127.0.0.1:12345"],
    "measure_noise_scale": ["--virtual-replicas", "2"],
    "allow_mismatch": ["--resume", "runs/cut"],
    **{f"run.{name}": ["--run-dir", "new"] for name in ("allow_mismatch", "checkpoint_every")},
    **{f"doctor.{name}": ["--profile"] for name in ("model", "batch_size", "dataset", "mirror", "devices")},
}
_ODD = [
    "0",
    "-1",
    "x",
    "1.5",
    "",
    "nan",
    "1e30",
    "nonsense",
    "../x",
    "a:b",
    "\n",
    "nowhere",
    "grey.png",
    "idx",
    "x" * 300,
]
_USUALLY, _SELDOM, _MOST = 0.9, 0.07, 4


def key(command: str, option: str) -> str:
    """An option's name in `VALUES`."""
    return f"{command}.{option}" if f"{command}.{option}" in VALUES else option


def values_of(command: str, parameter: Any) -> list[list[str]]:
    """All that may stand for an option or argument on the command line, each as words.

    Raises:
        KeyError: nobody thought of values for it.
    """
    names = getattr(parameter, "opts", [])
    if getattr(parameter, "is_flag", False):
        return [[name] for name in (names[0], *parameter.secondary_opts[:1])]
    values = VALUES[key(command, parameter.name)]
    return [[value] for value in values] if parameter.param_type_name == "argument" else [[names[0], v] for v in values]


def draw(random_: random.Random, command: str) -> list[str]:
    """A command line of random options, of which most can stand together."""
    parameters = {parameter.name: parameter for parameter in COMMANDS[command].params}
    by_word = {name: p.name for p in parameters.values() for name in (*p.opts, *p.secondary_opts)}
    options: dict[str, list[str]] = {}
    arguments: list[str] = []
    for alternatives in _USUAL.get(command, []):
        if random_.random() < _USUALLY:
            arguments += _add(options, by_word, random_.choice(alternatives))
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.param_type_name == "option" and (command, name) not in _NOT_ALONE
    ]
    for name in random_.sample(names, min(random_.randint(0, _MOST), len(names))):
        rivals = set().union(*(group for group in _EITHER if name in group))
        if (name in options or rivals & set(options)) and random_.random() < _USUALLY:
            continue
        options[name] = []
        for _ in range(random_.randint(1, 2) if parameters[name].multiple else 1):
            options[name] += _one(random_, command, parameters[name])
        needed = _WITH.get(f"{command}.{name}", _WITH.get(name, []))
        if needed and needed[0] in by_word and random_.random() < _USUALLY:
            _add(options, by_word, needed)
    for parameter in parameters.values():
        if parameter.param_type_name == "argument" and not arguments:
            arguments = _argument(random_, command, parameter)
    words = [word for name in random_.sample(list(options), len(options)) for word in options[name]]
    return [command, *words, *(["--"] if command == "launch" else []), *arguments]


def one_by_one(command: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """(name, a command line with each option and value in turn and what it needs, the same without it)."""
    parameters = {parameter.name: parameter for parameter in COMMANDS[command].params}
    by_word = {name: p.name for p in parameters.values() for name in (*p.opts, *p.secondary_opts)}
    for name, parameter in parameters.items():
        if parameter.param_type_name != "option" or (command, name) in _NOT_ALONE:
            continue
        options: dict[str, list[str]] = {name: []}
        needed = _WITH.get(f"{command}.{name}", _WITH.get(name, []))
        if needed and needed[0] in by_word:
            _add(options, by_word, needed)
        rivals = set().union(*(group for group in _EITHER if name in group)) - {name}
        arguments = []
        for alternatives in _USUAL.get(command, []):
            free = [words for words in alternatives if not rivals & {by_word[w] for w in words if w in by_word}]
            arguments += _add(options, by_word, (free or [[]])[0])
        for parameter_ in parameters.values():
            if parameter_.param_type_name == "argument" and not arguments:
                arguments = values_of(command, parameter_)[0]
        del options[name]
        rest = [word for words in options.values() for word in words]
        tail = [*(["--"] if command == "launch" else []), *arguments]
        for words in values_of(command, parameter):
            yield name, [command, *rest, *words, *tail], [command, *rest, *tail]


def _add(options: dict[str, list[str]], by_word: dict[str, str], words: list[str]) -> list[str]:
    """Adds the options of some words that are not there yet; returns the words before the first."""
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    for word in words[first:]:
        if word.startswith("--"):
            name = by_word[word]
            new = name not in options
            if new:
                options[name] = [word]
        elif new:
            options[name].append(word)
    return words[:first]


def _one(random_: random.Random, command: str, parameter: Any) -> list[str]:
    words = random_.choice(values_of(command, parameter))
    if len(words) == 2 and random_.random() < _SELDOM:
        return [words[0], random_.choice(_ODD)]
    return words


def _argument(random_: random.Random, command: str, parameter: Any) -> list[str]:
    if command == "run":
        return ["program.py"]
    if random_.random() < _SELDOM:
        return random_.choice([[], ["nowhere"], [""], ["idx"]])
    count = random_.choice([1, 2]) if parameter.nargs == -1 and command != "launch" else 1
    return [word for _ in range(count) for word in random_.choice(values_of(command, parameter))]
