"""Arguments and options that are called otherwise now: the old name is refused, old records are read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.cli import main
from tfmb.environment.old_names import NEW_NAMES, with_new_names
from tfmb.errors import ConfigError
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
