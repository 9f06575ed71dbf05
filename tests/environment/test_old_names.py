"""Arguments and options that are called otherwise now: the old name is refused, old records are read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.cli import main
from tfmb.environment.old_names import NEW_NAMES, NEW_OPTIONS, with_new_names
from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig
from tfmb.runs.identity import changes


@pytest.mark.parametrize("old", NEW_NAMES)
@pytest.mark.parametrize("door", [tfmb.fit, tfmb.advise, tfmb.tune, tfmb.lr_range, tfmb.evaluate, tfmb.predict])
def test_an_old_argument_is_refused_with_its_new_name(door: Callable[..., Any], old: str) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(ConfigError, match=rf"\A{old} is called {NEW_NAMES[old]} now[^\n]*\Z"):
        door(model, np.ones((2, 1)), np.ones((2, 1)), **{old: 1})


@pytest.mark.parametrize("old", NEW_NAMES)
def test_an_old_option_is_refused_with_its_new_name(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, new = (f"--{name.replace('_', '-')}" for name in (old, NEW_NAMES[old]))
    with pytest.raises(SystemExit) as ended:
        main(["train", option, "1"])
    assert ended.value.code == 2
    assert f"{option} is called {new} now" in capsys.readouterr().err


@pytest.mark.parametrize("old", NEW_OPTIONS)
def test_an_option_that_became_an_argument_says_where(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, _, option = old.rpartition(" ")
    with pytest.raises(SystemExit) as ended:
        main([command or "lr-range", option, "1"])
    assert ended.value.code == 2
    assert f"{option} is no option now: give {NEW_OPTIONS[old]}" in capsys.readouterr().err


def test_another_option_that_there_is_not_is_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--nothing-like-it", "1"])
    assert "No such option: --nothing-like-it" in capsys.readouterr().err


def test_records_of_before_are_read_by_todays_names() -> None:
    assert with_new_names({"replicas": 2, "seed": 1}) == {"devices": 2, "seed": 1}
    assert with_new_names(None) is None
    assert not changes({"config": {"static_shapes": False}}, {"config": {"pad_batches": False}})
    assert changes({"config": {"static_shapes": True}}, {"config": {"pad_batches": False}}) == {
        "config.pad_batches": (True, False)
    }


# The options of a run of `tfmb train` as they were written on 2026-11-29 (950dabc).
BEFORE: dict[str, Any] = {
    "dataset": "auto", "data": "mine:load", "mirror": None, "model": "mlp", "epochs": 5, "batch_size": 64,
    "optimizer": "sgd", "learning_rate": None, "weight_decay": 0.0, "momentum": 0.9, "nesterov": True, "rho": None,
    "centered": False, "beta_1": None, "beta_2": None, "epsilon": None, "amsgrad": False, "clipnorm": None,
    "clipvalue": None, "global_clipnorm": 1.0, "ema_momentum": None, "schedule": "cosine", "warmup": 10,
    "base_batch_size": 32, "rate_scaling": "sqrt", "augment": None, "precision": "float32", "virtual_replicas": None,
    "micro_batch_size": None, "noise_scale": False, "jit_compile": "auto", "static_shapes": False, "dropout": 0.5,
    "validation_size": 0, "shuffle": True, "seed": 0, "strategy": "auto", "replicas": None, "prefetch": None,
    "threads": None, "log_every": 100, "checkpoint_every": 100, "keep_checkpoints": 2, "on_divergence": "stop",
    "deterministic": False,
}  # fmt: skip


def test_the_arguments_of_a_run_of_before_are_read() -> None:
    config = TrainConfig.from_dict(with_new_names(BEFORE), "run.json")
    assert config == TrainConfig(
        dataset="mine:load",
        model="mlp,dropout=0.5",
        epochs=5,
        optimizer="sgd,weight_decay=0,momentum=0.9,nesterov,global_clipnorm=1",
        schedule="cosine,warmup=10",
        rate_scaling="sqrt,base_batch_size=32",
    )
    unchanged = {**BEFORE, "data": None, "optimizer": None, "weight_decay": None, "momentum": None, "nesterov": False}
    unchanged |= {
        "global_clipnorm": None,
        "warmup": 0,
        "base_batch_size": None,
        "dropout": None,
        "schedule": "constant",
    }
    assert TrainConfig.from_dict(with_new_names(unchanged), "run.json") == TrainConfig(model="mlp", epochs=5)
    with_beta = {**unchanged, "beta_1": 0.5}
    assert TrainConfig.from_dict(with_new_names(with_beta), "run.json").optimizer == "adam,beta_1=0.5"
    assert not changes({"config": BEFORE}, {"config": config.to_dict()})
    kept = {**unchanged, "prefetch": 4, "checkpoint_every": 50, "keep_checkpoints": 3}
    assert TrainConfig.from_dict(with_new_names(kept), "run.json").checkpoint_every == "50,keep=3"
