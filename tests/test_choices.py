"""Counts are integers of at least some number; every other value is refused by its argument's name."""

from typing import Any

import numpy as np
import pytest

from tfmb.choices import check_counts
from tfmb.errors import ConfigError


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, np.int64(1), float("nan")])
def test_no_count(value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        check_counts(first=1, second=value, third=0)
    assert str(refused.value) == f"second={value!r} must be an integer of at least 1"


def test_counts() -> None:
    check_counts(first=1, second=2**70)
    check_counts(0, first=0)
    check_counts(numpy=True, first=np.int32(1), second=np.uint8(7))
    check_counts(2, optional=True, first=None, second=2)
    for value in (np.int64(0), np.bool_(True), np.float32(1.0), None):
        with pytest.raises(ConfigError, match=r"first=.* must be an integer of at least 1"):
            check_counts(numpy=True, first=value)
