"""Who goes on: the best third of those seen, now or later."""

from tfmb.tuning.oracles.halving import SuccessiveHalving


def test_rungs_are_powers_below_the_whole_budget() -> None:
    assert SuccessiveHalving(9, "min").rungs == [1, 3]
    assert SuccessiveHalving(10, "min").rungs == [1, 3, 9]
    assert SuccessiveHalving(1, "min").rungs == []
    assert SuccessiveHalving(8, "min", eta=2).rungs == [1, 2, 4]


def test_the_best_third_goes_on_and_the_others_wait() -> None:
    halving = SuccessiveHalving(9, "min")
    assert halving.report("a", 1, 5.0)  # the first is the best so far
    assert not halving.report("b", 1, 6.0)
    assert halving.report("c", 1, 4.0)
    assert halving.report("a", 2, 9.0)  # no rung
    assert not halving.report("d", 1, 4.5)
    assert halving.next_to_call() is None


def test_one_that_waits_is_called_when_worse_ones_came() -> None:
    halving = SuccessiveHalving(9, "max")
    assert halving.report("a", 1, 0.9)
    assert not halving.report("b", 1, 0.8)
    for other in "cde":
        assert not halving.report(other, 1, 0.1)
    assert halving.next_to_call() is None  # one of five
    assert not halving.report("f", 1, 0.2)
    assert halving.next_to_call() == "b"  # the second of six
    assert halving.next_to_call() is None
    assert halving.report("a", 3, 0.9)
    assert not halving.report("b", 3, 0.85)


def test_the_highest_rung_is_called_first() -> None:
    halving = SuccessiveHalving(9, "min")
    assert halving.report("a", 1, 1.0)
    assert not halving.report("b", 1, 2.0)
    assert halving.report("a", 3, 1.0)
    assert not halving.report("c", 3, 2.0)
    for other in "defg":  # b is the second of six then, and so is c
        assert not halving.report(other, 1, 5.0)
        assert not halving.report(other, 3, 5.0)
    assert [halving.next_to_call(), halving.next_to_call(), halving.next_to_call()] == ["c", "b", None]


def test_one_that_diverged_counts_but_never_goes_on() -> None:
    halving = SuccessiveHalving(9, "min")
    assert not halving.report("a", 1, None)
    assert not halving.report("b", 1, None)
    assert halving.report("c", 1, 1.0)
    assert halving.next_to_call() is None
    assert not halving.report("d", 5, None)
