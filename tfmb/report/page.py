"""One HTML page that opens anywhere: charts that can be hovered and zoomed, and tables."""

import contextlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from string import Template

from tfmb.errors import StorageError
from tfmb.report.appearance import Chart, escaped

__all__ = ["write_page"]

# The browser is told to fetch nothing at all. Plotly compiles parallel coordinates, hence `unsafe-eval`.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { background: #ffffff; color: #222222; font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1240px;
  padding: 16px clamp(12px, 4vw, 24px) 48px; overflow-wrap: anywhere; }
h1 { font-size: 26px; margin: 8px 0; }
h2 { font-size: 19px; margin: 36px 0 4px; }
p { margin: 4px 0; }
.note { color: #555555; }
/* Shadows at the ends where there is more: white covers them where there is none. */
.wide { background: linear-gradient(to right, #ffffff 30%, #ffffff00) 0 0 / 40px 100% local no-repeat,
  linear-gradient(to left, #ffffff 30%, #ffffff00) 100% 0 / 40px 100% local no-repeat,
  linear-gradient(to right, #00000033, #00000000) 0 0 / 12px 100% scroll no-repeat,
  linear-gradient(to left, #00000033, #00000000) 100% 0 / 12px 100% scroll no-repeat; overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { border-bottom: 1px solid #dddddd; max-width: 320px; overflow-wrap: break-word; padding: 4px 7px;
  text-align: left; vertical-align: top; }
th { background: #f2f2f2; }
td.number, th.number { text-align: right; }
td:first-child { min-width: 10ch; }
tr.best td { background: #fff6cc; }
tr.best td:first-child::after { content: " ★"; }
</style>
</head>
<body>
<h1>$heading</h1>
$body
</body>
</html>
""")


def write_page(
    path: Path, title: str, heading: str, sections: Sequence[str], charts: Sequence[Chart], end: str = ""
) -> None:
    """Writes a page that needs no network; one that is there already is replaced when the new one is whole.

    Args:
        path: the page.
        title: of the browser's window, not escaped.
        heading: not escaped.
        sections: HTML before the charts.
        charts: each under its heading, where there is something to draw.
        end: HTML after them.

    Raises:
        StorageError: the page cannot be written; the old one stays.
    """
    body, drawn = list(sections), False
    for chart in charts:
        body.append(_section(chart, include_library=not drawn))
        drawn = drawn or chart.figure is not None
    text = _PAGE.substitute(title=escaped(title, 120), heading=escaped(heading, 120), body="\n".join([*body, end]))
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # where the folder is gone, so is this
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise StorageError(f"the page {path} cannot be written ({reason}): give another place") from error
        raise


def _section(chart: Chart, include_library: bool) -> str:
    """A chart under its heading; the first that is drawn brings Plotly's library along."""
    heading = f'<h2>{escaped(chart.title)}</h2>\n<p class="note">{escaped(chart.note, 1000)}</p>'
    if chart.figure is None:
        return heading
    import plotly.io  # there is a figure, so it is installed

    config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    drawing = plotly.io.to_html(
        chart.figure, config=config, include_plotlyjs=include_library, full_html=False, div_id=chart.name
    )
    least = f' style="min-width: {chart.least_width}px"' if chart.least_width else ""
    return f'{heading}\n<div class="wide"><div{least}>{drawing}</div></div>'
