"""One HTML file that needs nothing else: styles, scripts and figures are inside.

The page is plain HTML first: sentences and tables are there without scripts, figures come on top.
It follows the reader's light or dark setting, fits a phone, and prints. A content security policy
in its head forbids the browser to load anything from anywhere.

Same input, same bytes: no time of making, no random ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, Final

from ...schemas.errors import DriftlineError
from .figures import MARK, plotly_source

REMEDY: Final = "pip install 'driftline[report]'"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    title, lead: plain text (escaped by the page); the lead is a sentence or two below the title.
    html: the content, trusted: made of `html` of this module, of `figure_html`, or of a template.
    """

    title: str
    lead: str
    html: str


def page(
    title: str,
    subtitle: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    footer: str = "",
    style: str = "",
) -> str:
    """The whole document.

    title, subtitle, footer: plain text. facts: (name, value) pairs of plain text, shown in a grid
    below the title; pairs with an empty value are left out. style: CSS behind the common one.

    Raises:
        DriftlineError: jinja2 or plotly is not installed.
    """
    body = "".join(section.html for section in sections)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            subtitle=subtitle,
            facts=[(name, value) for name, value in facts if value],
            sections=sections,
            footer=footer,
            css=_text("page.css") + style,
            script=_text("page.js") if MARK in body else "",
            plotly=plotly_source() if MARK in body else "",
            version=_version(),
        )
    )


def require() -> None:
    """Whether pages can be made here; to be asked before long work.

    Raises:
        DriftlineError: jinja2 or plotly is not installed.
    """
    _environment()
    plotly_source()


def html(template: str, **values: Any) -> str:
    """A small piece of HTML from a jinja2 template; values are escaped unless marked `|safe`.

    >>> html("<b>{{ name }}</b>", name="<script>")
    '<b>&lt;script&gt;</b>'
    """
    return _compiled(template).render(**values)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    numeric: Sequence[int] = (),
    marked: Sequence[int] = (),
) -> str:
    """A table of plain text, which scrolls sideways on a narrow screen.

    numeric: columns aligned right. marked: rows set off (those that drifted, the one chosen).
    """
    return (
        _environment()
        .get_template("table.html.j2")
        .render(header=header, rows=rows, caption=caption, numeric=set(numeric), marked=set(marked))
    )


def choices(name: str, options: Mapping[str, str]) -> str:
    """Alternatives of which the reader sees one at a time, without scripts; print shows all.

    name: unlike that of any other choice on the page. options: label → HTML; at most 12.
    """
    if len(options) == 1:
        return next(iter(options.values()))
    return _environment().get_template("choices.html.j2").render(name=name, options=options)


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
        from jinja2.loaders import FunctionLoader
    except ImportError:
        raise DriftlineError(f"making a page needs jinja2 and plotly; {REMEDY}") from None
    return Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


def _text(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return version("driftline")
    except PackageNotFoundError:
        return ""
