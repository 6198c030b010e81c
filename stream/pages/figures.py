"""Plotly figures for a page, and the look that they share.

A figure is made of traces and axis titles only. Fonts, grid, margins, background and the colours of
text come from the page (page.js, page.css), so that they follow its light or dark setting. Colours
of traces are chosen here: they stand on both backgrounds, and no two of them look alike to readers
with any of the common kinds of colour blindness; tell series apart by dash or symbol as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any, Final

import orjson

from ...schemas.errors import DriftlineError

# After Okabe & Ito (2008): made a little paler or darker where white or black needs it.
COLOURS: Final = ("#1F82C4", "#D55E00", "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS: Final = ("circle", "square", "triangle-up", "diamond", "x", "cross")
ALARM: Final = "#D55E00"
NEUTRAL: Final = "#7f868f"

# Blue for a fall, orange for a rise, a faint grey for neither: dark and light pages show through.
DIVERGING: Final = (
    (0.0, "rgba(0,90,181,1)"),
    (0.25, "rgba(0,114,178,0.62)"),
    (0.5, "rgba(127,134,143,0.13)"),
    (0.75, "rgba(230,120,0,0.62)"),
    (1.0, "rgba(213,94,0,1)"),
)

MARK: Final = 'class="plot"'
"""Where this is in a page, the page needs plotly's script."""


def figure_html(figure: Any, *, label: str, height_px: int = 260, caption: str = "") -> str:
    """A plotly figure as a piece of a page, drawn when it comes into view.

    figure: a `plotly.graph_objects.Figure`, or its dict with `data` and `layout`. label: what it
    shows, for readers who cannot see it, and while it is not drawn. caption: below it. Both are
    plain text. The same figure gives the same bytes.
    """
    spec = figure if isinstance(figure, dict) else orjson.loads(figure.to_json())
    layout = {name: value for name, value in spec["layout"].items() if name != "template"}
    text = orjson.dumps({"data": spec["data"], "layout": layout}).decode()
    # Nothing inside may end the script element that holds it.
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure {MARK}><div class="plot-area" role="img" aria-label="{escape(label)}" '
        f'style="height:{height_px}px"><noscript>Figure (needs scripts): {escape(label)}</noscript>'
        f'</div><script type="application/json">{text}</script>{below}</figure>'
    )


def plain(text: str) -> str:
    """Text for a label of a figure, where plotly would take `<b>` or `<a>` for markup.

    >>> plain("<b>x & y</b>")
    '&lt;b&gt;x &amp; y&lt;/b&gt;'
    """
    return escape(text, quote=False)


def significant(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    """Values with no more digits than a figure can show: they are most of a page's size.

    >>> significant([0.123456, None, 12345.678])
    [0.1235, None, 12350.0]
    """
    return [None if v is None else float(f"{v:.{digits - 1}e}") for v in values]


@cache
def plotly_source() -> str:
    """Plotly's script.

    Raises:
        DriftlineError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise DriftlineError(
            "making a page needs jinja2 and plotly; pip install 'driftline[report]'"
        ) from None
    return get_plotlyjs()
