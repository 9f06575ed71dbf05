"""The colours of scores: by the logarithm where losses span more than a decade, with real values at the colour bar."""

import math

import pytest
from searches import search, trial

from tfmb.tuning.records import SearchRecord
from tfmb.tuning.report.colours import scale_of
from tfmb.tuning.report.figures import charts


def of(*scores: float, **changes: str) -> SearchRecord:
    return search(*(trial(number, score=score) for number, score in enumerate(scores)), **changes)


def test_losses_over_two_decades_have_colours_at_equal_ratios() -> None:
    scale = scale_of(of(0.01, 0.1, 1.0))
    low, high = scale.ends
    assert scale.log
    assert scale.place(0.1) - low == pytest.approx(high - scale.place(0.1))
    places, texts = scale.labels()
    assert places == [pytest.approx(math.log10(float(text))) for text in texts]
    assert {"0.01", "0.1", "1"} <= set(texts)


@pytest.mark.parametrize(
    "record",
    [
        of(0.1, 0.5, 0.9),  # less than a decade
        of(0.0, 0.5, 9.0),  # no logarithm
        of(-5.0, 0.5, 9.0),
        of(0.02, 0.5, 0.99, objective="val_accuracy", direction="max"),  # its good end is what matters
        of(0.3, 0.3),
        of(),
    ],
)
def test_other_scores_keep_equal_distances(record: SearchRecord) -> None:
    scale = scale_of(record)
    assert not scale.log
    assert scale.low < scale.high
    assert scale.place(0.37) == 0.37


def test_a_few_bad_losses_do_not_make_a_decade() -> None:
    assert not scale_of(of(*[0.1 + 0.01 * number for number in range(30)], 50.0)).log


def test_map_background_and_lines_share_the_scale() -> None:
    record = of(*[10.0 ** -(number % 4) for number in range(40)])
    drawn = {chart.name: chart.figure for chart in charts(record)}
    heat = next(trace for trace in drawn["map"].data if trace.type == "heatmap")
    marks = next(trace for trace in drawn["map"].data if trace.name == "completed")
    axis = drawn["map"].layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-3.0, 0.0)
    assert axis.colorbar.ticktext[0::3] == ("0.001", "0.01", "0.1", "1")
    assert list(axis.colorbar.tickvals[0::3]) == [pytest.approx(place) for place in (-3, -2, -1, 0)]
    assert list(marks.marker.color)[:4] == [pytest.approx(place) for place in (0, -1, -2, -3)]
    assert {round(z) for row in heat.z for z in row if z is not None} <= {0, -1, -2, -3}
    lines = drawn["parallel"].data[0].line.color
    assert list(lines)[:4] == [pytest.approx(good) for good in (0, 1 / 3, 2 / 3, 1)]
