"""Pages on a phone and on a desk: nothing runs out of the screen, and the toolbar covers no legend."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from made_up_pages import PAGES, comparison, measured, write_all

from tfmb.advice.compare_page import write_comparison

# Boxes on the screen of what a selector finds, by chart: left, top, right, bottom.
BOXES = """Object.fromEntries([...document.querySelectorAll('.plotly-graph-div')].map(chart => [chart.id,
Object.fromEntries(['.modebar', '.legend', '.xtitle', '.ytitle', '.cbtitle', '.cbaxis'].map(part => [part,
[...chart.querySelectorAll(part)].map(found => { const box = found.getBoundingClientRect();
return [box.left, box.top, box.right, box.bottom] }).filter(([left, top, right, bottom]) => right > left)]))]))"""
TABLES = """[...document.querySelectorAll('table')].map(table => [table.scrollWidth,
table.parentElement.clientWidth, getComputedStyle(table.parentElement).overflowX])"""
SCREEN = f"({{width: document.documentElement.scrollWidth, inner: innerWidth, boxes: {BOXES}, tables: {TABLES}}})"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_all(folder)
    return folder


def meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes have more than a line of pixels in common."""
    sides = [min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1)]
    return min(sides) > 1


@pytest.mark.process
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_screen(name: str, width: int, pages: Path) -> None:
    found = measured(pages / f"{name}.html", width, SCREEN)
    assert found["inner"] == width
    assert found["width"] <= width
    legends = 0
    for chart, boxes in found["boxes"].items():
        assert boxes[".modebar"], chart  # it is there, and to be seen on a phone, which does not hover
        for legend in boxes[".legend"]:
            legends += 1
            for part in (".modebar", ".xtitle", ".ytitle"):
                assert not any(meet(legend, box) for box in boxes[part]), f"{chart}: legend and {part}"
        for part in (".legend", ".xtitle", ".cbtitle", ".cbaxis"):
            assert all(left >= 0 and right <= width for left, _, right, _ in boxes[part]), f"{chart}: {part}"
    assert legends
    assert found["tables"] or name == "range"
    for needs, has, overflow in found["tables"]:
        assert overflow == "auto"
        assert needs <= has or width == 375


def test_boxes_meet_where_they_do() -> None:
    assert meet([0, 0, 10, 10], [5, 5, 15, 15])
    assert not meet([0, 0, 10, 10], [10, 0, 20, 10])
    assert not any(meet(one, other) for one, other in pairwise([[0, 0, 9, 9], [0, 20, 9, 29], [20, 20, 29, 29]]))


def test_every_table_lies_in_a_box_that_scrolls(tmp_path: Path) -> None:
    write_comparison(comparison(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert text.count("<table>") == text.count('<div class="wide">\n<table>') == 1
