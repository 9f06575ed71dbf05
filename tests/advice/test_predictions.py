"""Which batch sizes may as well be the fastest, and when times do not tell: on curves and times that are known."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tfmb.cli  # noqa: F401 - the command that shows advice
from tfmb.advice.batch_curve import BatchCurve, fit_curve
from tfmb.advice.pages import write_advice
from tfmb.advice.predictions import as_good_as, predict, untold
from tfmb.advice.records import Advice, SizePrediction, listed
from tfmb.advice.throughput import Throughput

SIZES = [8, 16, 32, 64, 128, 256, 512]
# Milliseconds of an update and updates to the target of digits' MLP (Intel Xeon, 2 cores).
STEPS = {8: 0.5, 16: 0.53, 32: 0.59, 64: 0.77, 128: 1.0, 256: 1.75, 512: 3.2}


@functools.cache
def curve() -> BatchCurve:
    return fit_curve([8, 64, 512], [[50 * (1 + 160 / size) * seed for seed in (0.9, 1, 1.1)] for size in (8, 64, 512)])


def throughput(spread: Sequence[float] = (0.99, 1, 1.01, 1, 1), share_left: float = 1.0, **times: Any) -> Throughput:
    """Five rounds with a spread; `b64=5.0` makes batch size 64 so many times slower in all, and a list in each."""
    rounds = []
    for size, step in STEPS.items():
        given = times.get(f"b{size}", 1.0)
        factors = given if isinstance(given, list) else [given] * len(spread)
        rounds.append(tuple(step / 1000 * one * factor for one, factor in zip(spread, factors, strict=True)))
    return Throughput(
        batch_sizes=tuple(SIZES),
        step_seconds=tuple(sorted(one)[2] for one in rounds),
        rounds=tuple(rounds),
        share_left=share_left,
        trouble="the machine is busy" if share_left < 1 else None,
    )


def predictions(found: Throughput) -> tuple[SizePrediction, ...]:
    return predict(curve(), found, SIZES, lambda size: 0.01)


def test_what_may_as_well_be_is_listed_and_spans_none_that_is_slower() -> None:
    quiet = throughput()
    assert as_good_as(128, curve(), quiet, SIZES) == (64, 128)  # 1.2 times as long, but 256 takes 1.26
    slow = throughput(b64=5.0)  # what a burst made of it in the end, or a kernel that has no form for it
    near = as_good_as(128, curve(), slow, SIZES)
    assert 64 not in near
    assert 128 in near


def test_a_size_that_is_known_badly_may_as_well_be() -> None:
    found = throughput(b64=[0.8, 5.0, 0.8, 5.0, 5.0])
    assert 64 in as_good_as(128, curve(), found, SIZES)


def test_the_spread_over_rounds_enters_every_interval() -> None:
    calm, wild = predictions(throughput()), predictions(throughput((0.6, 1.6, 1, 0.7, 1.4)))
    for one, other in zip(calm, wild, strict=True):
        assert other.seconds.low < 0.9 * one.seconds.low
        assert other.seconds.high > 1.1 * one.seconds.high
        assert one.seconds.low < one.seconds.value < one.seconds.high
    only = predictions(throughput(b64=[1.0, 5.0, 1.0, 5.0, 5.0]))
    assert only[3].seconds.high > 4 * only[3].seconds.low
    assert only[4].seconds == calm[4].seconds


def test_times_tell_on_a_quiet_machine() -> None:
    assert untold(128, curve(), throughput(), SIZES) is None


def test_times_that_do_not_tell_are_said() -> None:
    why = untold(128, curve(), throughput(share_left=0.5), SIZES)
    assert why is not None
    assert why.startswith("the machine is busy; it cannot tell whether batch size ")
    assert " 64, 128 or 256 " in why
    assert why.endswith("is the fastest: ask again when it is quiet")
    unsteady = untold(128, curve(), throughput((0.5, 1.6, 1, 0.5, 1.6)), SIZES)
    assert unsteady == (
        "the time of an update differs from round to round; it cannot tell how long batch size 128 takes: "
        "ask again when it is quiet"
    )


def test_one_rival_whose_time_is_not_known_is_enough() -> None:
    """64 is the fastest if its slow rounds were a burst's: 128 may take 1.4 times as long."""
    steps = [0.6, 5.0, 0.6, 5.0, 5.0]
    why = untold(128, curve(), throughput(b64=steps), SIZES)
    assert why is not None
    assert "whether batch size 64" in why


def advice(best: int | None, as_good: tuple[int, ...]) -> Advice:
    return Advice(
        name="mine", optimizer="adam", target=None, target_is_ours=False, batch_size=best,
        learning_rate=None if best is None else 0.005, as_good=as_good, least_compute=None, reason="because",
        curve=curve(), transfer=None, predictions=predictions(throughput()), throughput=throughput(), sweep=None,
        runs=(), confirmed=None, extras=(), cost_seconds=1.0, cost_examples=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("as_good", "words", "interval"),
    [
        ((32, 128, 256), "batch size 128 (it may as well be 32 or 256), learning rate 0.005", [128, 256]),
        ((64, 128, 256), "batch size 128 (it may as well be 64 or 256), learning rate 0.005", [64, 256]),
        ((128,), "batch size 128, learning rate 0.005", [128, 128]),
    ],
)
def test_words_record_and_interval_agree(as_good: tuple[int, ...], words: str, interval: list[int]) -> None:
    found = advice(128, as_good)
    assert found.answer == words
    assert found.record()["as_good_batch_sizes"] == list(as_good)
    assert found.record()["batch_size_interval"] == interval  # neighbours only: it spans none that is slower


def test_what_is_undetermined_has_no_interval() -> None:
    found = advice(None, (64, 128))
    assert found.answer == ""
    assert found.record()["batch_size_interval"] is None
    assert found.record()["as_good_batch_sizes"] == [64, 128]


def test_the_page_says_the_same_words(tmp_path: Path) -> None:
    write_advice(advice(128, (32, 128, 256)), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "batch size 128 (it may as well be 32 or 256), learning rate 0.005" in page


def test_the_command_shows_what_was_found_where_times_do_not_tell(capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules["tfmb.cli.advise"]._show(advice(None, (64, 128)))
    reason, head, *table, cost = capsys.readouterr().out.splitlines()
    assert (reason, head.split()[:2]) == ("because", ["batch", "size"])
    assert [line.split()[0] for line in table] == [str(size) for size in SIZES]
    assert cost.startswith("it took ")


def test_lists_for_people() -> None:
    assert [listed(sizes) for sizes in ([8], [8, 16], [8, 16, 32])] == ["8", "8 or 16", "8, 16 or 32"]
