"""`TrainConfig`: the recipe by default, every bad option refused in one line that names it."""

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.choices import MODEL_NAMES, OPTIMIZER_OPTIONS, STRATEGY_NAMES
from tfmb.errors import ConfigError, DataError, TfmbError
from tfmb.jobs.config import TrainConfig

FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]
SWITCHES = ("nesterov", "centered", "amsgrad")
OPTIONS = dict.fromkeys(option for options in OPTIMIZER_OPTIONS.values() for option in options)


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_the_reference_recipe_and_no_option_is_new() -> None:
    assert TrainConfig().to_dict() == {
        "dataset": "auto",
        "data": None,
        "mirror": None,
        "model": "cnn",
        "epochs": None,
        "batch_size": 64,
        "optimizer": None,
        "learning_rate": None,
        "weight_decay": None,
        "momentum": None,
        "nesterov": False,
        "rho": None,
        "centered": False,
        "beta_1": None,
        "beta_2": None,
        "epsilon": None,
        "amsgrad": False,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "ema_momentum": None,
        "schedule": "constant",
        "warmup": 0,
        "base_batch_size": None,
        "rate_scaling": "linear",
        "augment": None,
        "precision": "float32",
        "virtual_replicas": None,
        "micro_batch_size": None,
        "measure_noise_scale": False,
        "jit_compile": "auto",
        "pad_batches": False,
        "checkpoint_every": 100,
        "keep_checkpoints": 2,
        "on_divergence": "stop",
        "deterministic": False,
        "dropout": None,
        "validation_size": 0,
        "shuffle": True,
        "seed": 0,
        "strategy": "auto",
        "devices": None,
        "prefetch": None,
        "threads": None,
        "log_every": 100,
    }
    assert TrainConfig().optimizer_arguments() == {}


def test_a_config_is_one_frozen_value() -> None:
    config = TrainConfig(seed=1)
    assert config == TrainConfig(seed=1) != TrainConfig(seed=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]


SHARE = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, allow_infinity=False, allow_nan=False) | st.integers(0, 2**60)
TEXT = st.text(min_size=1, max_size=8)
REFERENCE = st.from_regex(r"[a-z_][a-z0-9_]{0,4}(\.[a-z]{1,3}){0,2}:[a-z_]{1,5}", fullmatch=True)
VALUES: dict[str, Any] = {
    "momentum": SHARE,
    "rho": SHARE,
    "beta_1": SHARE,
    "beta_2": SHARE,
    "epsilon": POSITIVE,
    **dict.fromkeys(SWITCHES, st.booleans()),
}


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    optimizer = draw(st.none() | st.sampled_from(list(OPTIMIZER_OPTIONS)))
    options = {name: VALUES[name] for name in OPTIMIZER_OPTIONS[optimizer or "adam"]}
    data = draw(st.none() | REFERENCE)
    model = draw(st.sampled_from(MODEL_NAMES) | REFERENCE)
    strategy = draw(st.sampled_from(STRATEGY_NAMES))
    small = {
        "mirror": st.none() | TEXT,
        "epochs": st.none() | st.integers(1, 2**62),
        "batch_size": st.just("full") | st.integers(1, 2**62),
        "learning_rate": st.none() | POSITIVE,
        "weight_decay": st.none() | POSITIVE,
        "validation_size": st.integers(0, 2**62),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**63 - 1),
        "devices": st.none() if strategy == "one-device" else st.none() | st.integers(1, 64),
        "log_every": st.integers(1, 2**62),
        **({"dropout": st.none() | SHARE} if model in MODEL_NAMES else {}),
        **({"dataset": TEXT} if data is None else {}),
        **options,
    }
    chosen = draw(st.fixed_dictionaries({}, optional=small))
    return TrainConfig(data=data, model=model, strategy=strategy, optimizer=optimizer, **chosen)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(configs())
def test_a_config_comes_back_from_its_record(config: TrainConfig) -> None:
    record = json.loads(json.dumps(config.to_dict()))
    assert list(record) == FIELDS
    again = TrainConfig.from_dict(record, "run.json")
    assert again == config
    assert repr(again) == repr(config)  # 1 is not 1.0, nor True
    assert again.own_model == (config.model not in ("cnn", "mlp", "resnet"))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(configs())
def test_the_optimizer_gets_what_was_asked_for_and_nothing_else(config: TrainConfig) -> None:
    record = config.to_dict()
    names = {"learning_rate", "weight_decay", *OPTIONS}
    asked = {name: record[name] for name in names if record[name] is not None and record[name] is not False}
    assert config.optimizer_arguments() == asked


@pytest.mark.parametrize(
    ("optimizer", "option"),
    [
        ("adamw", "weight_decay"),
        ("momentum", "momentum"),
        (None, "beta_1"),
    ],
)
def test_a_zero_that_was_asked_for_is_not_the_default(optimizer: str | None, option: str) -> None:
    zero: dict[str, Any] = {option: 0.0}
    config = TrainConfig(optimizer=optimizer, **zero)
    assert config.optimizer_arguments() == {option: 0.0}


WHOLE = ("epochs", "batch_size", "validation_size", "seed", "devices", "log_every")
NUMBERS = ("learning_rate", "weight_decay", "momentum", "rho", "beta_1", "beta_2", "epsilon", "dropout")
FOR_OPTION = {option: name for name, options in OPTIMIZER_OPTIONS.items() for option in options}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [-1, True, 1.5, 1.0, "1", "Full", math.nan, 2**63, [1], {}])
def test_a_bad_whole_number_is_refused(name: str, value: Any) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"--{name.replace('_', '-')} {value!r} must be an integer of at least")
    assert ("full" in message.partition("must")[2]) == (name == "batch_size")


@pytest.mark.parametrize("name", ["epochs", "batch_size", "devices", "log_every"])
def test_none_of_it_is_refused(name: str) -> None:
    assert refusal(**{name: 0}).endswith(("at least 1", "at least 1 or 'full'"))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf, True, False, "0.1", [0.1]])
def test_a_bad_number_is_refused(name: str, value: Any) -> None:
    message = refusal(**{name: value, "optimizer": FOR_OPTION.get(name)})
    assert message.startswith(f"--{name.replace('_', '-')} ")
    assert "must be a number" in message


def test_an_integer_beyond_every_float_is_no_number() -> None:
    assert refusal(learning_rate=10**400).startswith("--learning-rate ")


@pytest.mark.parametrize("name", ["momentum", "rho", "beta_1", "beta_2", "dropout"])
def test_a_share_is_less_than_one(name: str) -> None:
    assert f"--{name.replace('_', '-')} 1.0 must be a number in [0, 1)" in refusal(**{name: 1.0})
    below: dict[str, Any] = {name: math.nextafter(1, 0), "optimizer": FOR_OPTION.get(name)}
    assert getattr(TrainConfig(**below), name) < 1


@pytest.mark.parametrize("name", [*SWITCHES, "shuffle"])
@pytest.mark.parametrize("value", [0, 1, "yes"])
def test_a_switch_is_true_or_false(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == f"--{name} {value!r} must be true or false"


@pytest.mark.parametrize("name", ["dataset", "data", "mirror", "model", "optimizer", "strategy"])
@pytest.mark.parametrize("value", [0, 1.5, True, ["cnn"], {"a": 1}, b"cnn"])
def test_a_name_is_text(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == f"--{name} {value!r} must be text"


@pytest.mark.parametrize(
    "name", ["dataset", "model", "strategy", "batch_size", "validation_size", "seed", "log_every", "shuffle"]
)
def test_what_has_no_other_default_cannot_be_left_open(name: str) -> None:
    assert refusal(**{name: None}).startswith(f"--{name.replace('_', '-')} None must be")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": ""}, ("--dataset is empty", "give auto")),
        ({"data": "no colon"}, ("--data 'no colon'", "package.module:function")),
        ({"data": ""}, ("--data ''", "package.module:function")),
        ({"data": "m:f", "dataset": "digits"}, ("--data m:f", "--dataset 'digits'", "cannot both")),
        ({"data": "m:f", "dataset": "a\nb"}, ("--data m:f", "--dataset", "cannot both")),
        ({"model": "lenet"}, ("--model 'lenet'", "cnn, mlp")),
        ({"schedule": "triangle"}, ("--schedule 'triangle'", "one-cycle")),
        ({"schedule": "plateau"}, ("--schedule plateau", "--validation-size")),
        ({"precision": "float8"}, ("--precision 'float8'", "mixed_bfloat16")),
        ({"rate_scaling": "cube"}, ("--rate-scaling 'cube'", "linear, sqrt")),
        ({"virtual_replicas": 3}, ("--virtual-replicas 3", "power of two")),
        ({"virtual_replicas": 2, "devices": 4}, ("--devices 4", "--virtual-replicas 2")),
        ({"virtual_replicas": 2, "micro_batch_size": 8}, ("--micro-batch-size", "cannot both")),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, ("--clipnorm", "choose one")),
        ({"warmup": -1}, ("--warmup -1", "at least 0")),
        ({"model": ""}, ("--model ''", "cnn, mlp")),
        ({"model": "m\n:f"}, ("--model 'm\\n:f'", "package.module:function")),
        ({"model": "m:f", "dropout": 0.5}, ("--dropout", "m:f")),
        ({"optimizer": "adagrad"}, ("--optimizer 'adagrad'", "sgd, momentum, rmsprop, adam, adamw")),
        ({"optimizer": ""}, ("--optimizer ''", "sgd")),
        ({"optimizer": "a\nb"}, ("--optimizer 'a\\nb'", "sgd")),
        ({"strategy": "cloud"}, ("--strategy 'cloud'", "auto, one-device, mirrored, multi-worker, tpu")),
        ({"strategy": "one-device", "devices": 2}, ("--strategy one-device", "2", "mirrored")),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_named_with_the_mend(options: dict[str, Any], words: tuple[str, ...]) -> None:
    message = refusal(**options)
    for word in words:
        assert word in message


@pytest.mark.parametrize("optimizer", [None, *OPTIMIZER_OPTIONS])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_the_optimizer_does_not_have_is_refused(optimizer: str | None, option: str) -> None:
    takers = [name for name, options in OPTIMIZER_OPTIONS.items() if option in options]
    options: dict[str, Any] = {"optimizer": optimizer, option: True if option in SWITCHES else 0.5}
    if (optimizer or "adam") in takers:
        assert getattr(TrainConfig(**options), option) == options[option]
    else:
        message = refusal(**options)
        assert message.startswith(f"--{option.replace('_', '-')} is no option of {optimizer or 'adam'}")
        assert ", ".join(takers) in message


@pytest.mark.parametrize(("optimizer", "option"), [("adam", "momentum"), ("sgd", "beta_1"), ("momentum", "epsilon")])
def test_so_is_a_zero_for_it(optimizer: str, option: str) -> None:
    assert "is no option of" in refusal(**{"optimizer": optimizer, option: 0.0})


@pytest.mark.parametrize(
    "record",
    [
        {"unknown": 1},
        {"batch-size": 64},
        {"batch_size": 0},
        {"batch_size": "64"},
        {"seed": None},
        {"optimizer": ["adam"]},
        {"learning_rate": math.nan},
        {"momentum": 0.9},
        {"": None},
        {"a\nb": None},
        [],
        ["seed"],
        "seed",
        5,
        None,
    ],
    ids=str,
)
def test_a_damaged_record_is_a_data_error_that_names_the_file(record: Any) -> None:
    with pytest.raises(DataError) as caught:
        TrainConfig.from_dict(record, "runs/1/run.json")
    assert str(caught.value).startswith("runs/1/run.json: ")
    assert "\n" not in str(caught.value)


def test_a_record_may_leave_options_out() -> None:
    assert TrainConfig.from_dict({"seed": 3}, "run.json") == TrainConfig(seed=3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
PLAUSIBLE = st.sampled_from(
    [None, True, False, 0, 1, 0.0, 0.5, "full", "m:f", "a\nb", *MODEL_NAMES, *STRATEGY_NAMES, *OPTIMIZER_OPTIONS]
)


def outcome(make: Any, *arguments: Any, **options: Any) -> TrainConfig | None:
    """A config, or None where it is refused in one line."""
    try:
        return make(*arguments, **options)
    except TfmbError as error:
        message = str(error)
    assert "\n" not in message
    return None


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_of_any_option_is_kept_or_refused(name: str, value: Any) -> None:
    config = outcome(TrainConfig, **{name: value})
    if config is not None:
        assert getattr(config, name) == value


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(FIELDS), PLAUSIBLE | JSON, max_size=4))
def test_any_record_is_kept_or_refused(record: dict[str, Any]) -> None:
    config = outcome(TrainConfig.from_dict, record, "run.json")
    assert (config is None) == (outcome(TrainConfig, **record) is None)


@pytest.mark.process
def test_the_options_are_checked_without_tensorflow() -> None:
    program = "import tfmb.jobs.config, sys; assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
