"""A loss that explodes is told from one that is only high."""

from types import SimpleNamespace
from typing import Any

import pytest

from tfmb.training.loop.explosion import Exploded, Watch, has_exploded


def report(*losses: float, update: int = 1) -> Any:
    return SimpleNamespace(losses=list(losses), update=update)


@pytest.mark.parametrize(
    ("loss", "first", "expected"),
    [(99.0, 1.0, False), (101.0, 1.0, True), (101.0, -1.0, True), (0.09, 0.0, False), (0.11, 0.0, True)],
)
def test_far_above_the_first_loss(loss: float, first: float, expected: bool) -> None:
    assert has_exploded(loss, first) is expected
    assert Watch(first).exploded(loss) is expected
    assert not Watch().exploded(loss)


def test_a_watch_compares_the_mean_of_a_call_with_the_first_loss_of_all() -> None:
    watch = Watch()
    watch.updates_made(report())
    watch.updates_made(report(1.0, 150.0))
    assert (watch.first, watch.stop) == (1.0, False)
    with pytest.raises(Exploded, match="the loss rose from 1 to 150") as ended:
        watch.updates_made(report(90.0, 150.0, update=4))
    assert ended.value.update == 4


def test_a_watch_keeps_the_logs() -> None:
    watch = Watch()
    logged: Any = SimpleNamespace(logs={"loss": 1.0})
    watch.epoch_ended(logged)
    assert watch.logs == {"loss": 1.0}
