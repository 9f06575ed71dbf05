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
from tfmb.environment.imports import is_reference
from tfmb.errors import ConfigError, DataError, TfmbError
from tfmb.jobs.choice import ARGUMENTS, Choice
from tfmb.jobs.config import TrainConfig

FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_the_reference_recipe_and_no_option_is_new() -> None:
    assert TrainConfig().to_dict() == {
        "dataset": "auto",
        "mirror": None,
        "model": "cnn",
        "optimizer": None,
        "devices": None,
        "seed": 0,
        "validation_size": 0,
        "shuffle": True,
        "augment": None,
        "batch_size": 64,
        "epochs": None,
        "learning_rate": None,
        "schedule": "constant",
        "rate_scaling": None,
        "precision": "float32",
        "virtual_replicas": None,
        "micro_batch_size": None,
        "measure_noise_scale": False,
        "jit_compile": "auto",
        "pad_batches": False,
        "strategy": "auto",
        "threads": None,
        "log_every": 100,
        "checkpoint_every": "100",
        "on_divergence": "stop",
        "deterministic": False,
    }
    assert TrainConfig().optimizer_arguments() == {}


def test_a_config_is_one_frozen_value() -> None:
    config = TrainConfig(seed=1)
    assert config == TrainConfig(seed=1) != TrainConfig(seed=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]


POSITIVE = st.floats(0, allow_infinity=False, allow_nan=False) | st.integers(0, 2**60)
TEXT = st.text(min_size=1, max_size=8)
REFERENCE = st.from_regex(r"[a-z_][a-z0-9_]{0,4}(\.[a-z]{1,3}){0,2}:[a-z_]{1,5}", fullmatch=True)


@st.composite
def choices(draw: st.DrawFn, option: str, names: tuple[str, ...]) -> Choice:
    """A name with arguments that it takes."""
    name = draw(st.sampled_from(names))
    values: dict[str, Any] = {}
    for key, about in ARGUMENTS[option].items():
        if name in about.of and not (key.startswith(("clip", "global")) and any("clip" in known for known in values)):
            number = st.floats(about.least, 0.999 if about.below == 1 else 1e300)
            value = st.just(True) if about.switch else st.integers(about.least, 2**62) if about.whole else number
            if draw(st.booleans()):
                values[key] = draw(value)
    return Choice(name=name, arguments=values)


RULES = choices("optimizer", tuple(OPTIMIZER_OPTIONS)).map(str)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    strategy = draw(st.sampled_from(STRATEGY_NAMES))
    own = draw(st.booleans())
    small: dict[str, Any] = {
        "epochs": st.none() | st.integers(1, 2**62),
        "batch_size": st.just("full") | st.integers(1, 2**62),
        "learning_rate": st.none() | POSITIVE,
        "validation_size": st.integers(1, 2**62),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**63 - 1),
        "devices": st.none() if strategy == "one-device" else st.none() | st.integers(1, 64),
        "log_every": st.integers(1, 2**62),
        "model": choices("model", MODEL_NAMES).map(str) | REFERENCE,
        "optimizer": st.none() | RULES,
        "schedule": choices("schedule", ("constant", "cosine", "one-cycle")).map(str),
        **({"dataset": REFERENCE} if own else {"dataset": TEXT.filter(lambda text: not is_reference(text))}),
        **({} if own else {"mirror": st.none() | TEXT}),
    }
    chosen: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=small))
    return TrainConfig(strategy=strategy, **chosen)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(configs())
def test_a_config_comes_back_from_its_record(config: TrainConfig) -> None:
    record = json.loads(json.dumps(config.to_dict()))
    assert list(record) == FIELDS
    again = TrainConfig.from_dict(record, "run.json")
    assert again == config
    assert repr(again) == repr(config)  # 1 is not 1.0, nor True
    assert again.own_model == (":" in config.model)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"optimizer": "adamw,weight_decay=0"}, {"weight_decay": 0.0}),
        ({"optimizer": "momentum,momentum=0,nesterov"}, {"momentum": 0.0, "nesterov": True}),
        ({"learning_rate": 0.0}, {"learning_rate": 0.0}),
        ({"optimizer": "sgd,ema_momentum=0.9"}, {"use_ema": True, "ema_momentum": 0.9}),
        ({"optimizer": "sgd"}, {}),
    ],
    ids=str,
)
def test_the_optimizer_gets_what_was_asked_for_and_nothing_else(
    options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """A zero that was asked for is not the default."""
    assert TrainConfig(**options).optimizer_arguments() == arguments


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("optimizer", "sgd,nesterov=true,momentum=.90", "sgd,momentum=0.9,nesterov"),
        ("model", "cnn,dropout=0.50", "cnn,dropout=0.5"),
        ("schedule", "cosine,warmup=010", "cosine,warmup=10"),
        ("rate_scaling", "sqrt,base_batch_size=64", "sqrt,base_batch_size=64"),
    ],
)
def test_equal_choices_are_written_alike(name: str, text: str, same: str) -> None:
    given: dict[str, Any] = {name: text}
    assert getattr(TrainConfig(**given), name) == same


def test_the_parts_of_a_choice() -> None:
    config = TrainConfig(
        model="mlp,dropout=0.5", optimizer="sgd,momentum=0.9", schedule="cosine,warmup=7",
        rate_scaling="linear,base_batch_size=32",
    )  # fmt: skip
    assert (config.model_name, config.dropout, config.own_model) == ("mlp", 0.5, False)
    assert (config.schedule_name, config.warmup) == ("cosine", 7)
    assert (config.scaling, config.base_batch_size) == ("linear", 32)
    assert config.rule == Choice(name="sgd", arguments={"momentum": 0.9})
    assert TrainConfig().rule is None


WHOLE = ("epochs", "batch_size", "validation_size", "seed", "devices", "log_every")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [-1, True, 1.5, 1.0, "1", "Full", math.nan, 2**63, [1], {}])
def test_a_bad_whole_number_is_refused(name: str, value: Any) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"--{name.replace('_', '-')} {value!r} must be an integer of at least")
    assert ("full" in message.partition("must")[2]) == (name == "batch_size")


@pytest.mark.parametrize("name", ["epochs", "batch_size", "devices", "log_every"])
def test_none_of_it_is_refused(name: str) -> None:
    assert refusal(**{name: 0}).endswith(("at least 1", "at least 1 or 'full'"))


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf, True, False, "0.1", [0.1], 10**400])
def test_a_bad_number_is_refused(value: Any) -> None:
    """An integer beyond every float is no number either."""
    message = refusal(learning_rate=value)
    assert message.startswith("--learning-rate ")
    assert message.endswith("must be a number at least 0")


@pytest.mark.parametrize("name", ["shuffle", "deterministic"])
@pytest.mark.parametrize("value", [0, 1, "yes"])
def test_a_switch_is_true_or_false(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == f"--{name} {value!r} must be true or false"


@pytest.mark.parametrize("name", ["dataset", "mirror", "model", "optimizer", "strategy", "schedule"])
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
        ({"model": "lenet"}, ("--model 'lenet'", "cnn, mlp")),
        ({"schedule": "triangle"}, ("--schedule 'triangle'", "one-cycle")),
        ({"schedule": "plateau"}, ("--schedule plateau", "--validation-size")),
        ({"precision": "float8"}, ("--precision 'float8'", "mixed_bfloat16")),
        ({"dataset": "m:f", "mirror": "x"}, ("--mirror x", "m:f needs none")),
        ({"rate_scaling": "cube"}, ("--rate-scaling 'cube'", "linear, sqrt")),
        ({"rate_scaling": "sqrt"}, ("--rate-scaling sqrt", "sqrt,base_batch_size=64")),
        ({"virtual_replicas": 3}, ("--virtual-replicas 3", "power of two")),
        ({"virtual_replicas": 2, "devices": 4}, ("--devices 4", "--virtual-replicas 2")),
        ({"virtual_replicas": 2, "micro_batch_size": 8}, ("--micro-batch-size", "cannot both")),
        ({"model": ""}, ("--model ''", "cnn, mlp")),
        ({"model": "m\n:f"}, ("--model 'm\\n:f'", "package.module:function")),
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
        {"optimizer": "adam,momentum=0.9"},
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
