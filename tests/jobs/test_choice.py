"""`Choice`: a name with arguments, read from text; what makes no sense is refused in one line that names it."""

from typing import Any

import pytest

from tfmb.choices import OPTIMIZER_OPTIONS
from tfmb.errors import ConfigError
from tfmb.jobs.choice import ARGUMENTS, Choice
from tfmb.optimizers import interop

NAMES = [
    (option, name) for option, known in ARGUMENTS.items() for about in known.values() for name in about.of or ("100",)
]


def text_of(option: str, key: str) -> str:
    about = ARGUMENTS[option][key]
    return key if about.switch else f"{key}={max(8, about.least) if about.whole else 0.5}"


@pytest.mark.parametrize(("option", "name"), sorted(set(NAMES)))
def test_each_argument_of_each_name_is_read_and_written(option: str, name: str) -> None:
    for key, about in ARGUMENTS[option].items():
        if name in (about.of or (name,)):
            text = f"{name},{text_of(option, key)}"
            choice = Choice.parse(option, text)
            assert (choice.name, list(choice.arguments)) == (name, [key])
            assert str(choice) == text
            assert Choice.parse(option, str(choice)) == choice


@pytest.mark.parametrize("rule", OPTIMIZER_OPTIONS)
def test_the_optimizers_take_their_arguments(rule: str) -> None:
    for key in ARGUMENTS["optimizer"]:
        if rule in ARGUMENTS["optimizer"][key].of and key != "ema_momentum":
            value = Choice.parse("optimizer", f"{rule},{text_of('optimizer', key)}").arguments[key]
            made = interop.OPTIMIZERS[rule](**{key: value})
            assert made.get_config()[key] == value


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("optimizer", "lion", "unknown --optimizer 'lion': give sgd, momentum, rmsprop, adam, adamw"),
        ("optimizer", "a\nb", "unknown --optimizer 'a\\nb'"),
        (
            "optimizer",
            "adam,momentum=0.9",
            "momentum is no argument of it, but of sgd, momentum, rmsprop: leave it out",
        ),
        ("optimizer", "adam,learning_rate=1", "give --learning-rate"),
        ("optimizer", "sgd,speed=1", "unknown argument 'speed': give momentum=VALUE, nesterov, weight_decay=VALUE"),
        ("optimizer", "sgd,", "unknown argument ''"),
        ("optimizer", "sgd,momentum", "--optimizer momentum='' must be a number in [0, 1)"),
        ("optimizer", "sgd,momentum=1", "--optimizer momentum='1' must be a number in [0, 1)"),
        ("optimizer", "sgd,momentum=nan", "must be a number in [0, 1)"),
        ("optimizer", "sgd,momentum=-0.1", "must be a number in [0, 1)"),
        ("optimizer", "adam,epsilon=1e999", "must be a number at least 0"),
        ("optimizer", "sgd,nesterov=1", "it is a switch: give nesterov alone"),
        ("optimizer", "sgd,momentum=0.5,momentum=0.5", "momentum is given twice"),
        ("optimizer", "sgd,clipnorm=1,clipvalue=1", "cannot be given together: choose one"),
        ("model", "mine:build,dropout=0.5", "dropout is no argument of it, but of cnn, mlp, resnet"),
        ("schedule", "cosine,warmup=1.5", "--schedule warmup='1.5' must be an integer at least 0"),
        ("rate_scaling", "sqrt,base_batch_size=0", "must be an integer at least 1"),
        ("checkpoint_every", "5,keep=0", "--checkpoint-every keep='0' must be an integer at least 1"),
        ("checkpoint_every", "5,best=1", "unknown argument 'best': give keep=VALUE"),
    ],
)
def test_what_makes_no_sense_is_named(option: str, text: str, words: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Choice.parse(option, text)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", str(2**63), ",keep=3"])
def test_a_number_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\A--checkpoint-every '[^']*' must be an integer of at least 1\Z"):
        Choice.count("checkpoint_every", text)


def test_a_number_with_an_argument() -> None:
    assert Choice.count("checkpoint_every", "500,keep=3") == (500, {"keep": 3})
    assert Choice.count("checkpoint_every", "500") == (500, {})
