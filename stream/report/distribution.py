"""A feature's distribution in the reference and on the stream, as a small drawing (SVG).

Drawn here rather than by a charting library: it is seen without scripts, takes its colours from the
page, prints, and a page with hundreds of them stays light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
import numpy.typing as npt

from ..alert.wording import percent
from .bins import Bins, Counts

WIDTH: Final = 440
HEIGHT: Final = 150
ROW: Final = 19
MOST_CATEGORIES: Final = 10
"""Categories drawn: those of the largest share in any of the samples. The others are one row."""
NAME: Final = 20
"""Characters of a name that fit beside its bar."""

CUT: Final = 3.0
"""A bar so many times as high as any of the reference and the whole range is cut off."""

_LEFT, _TOP, _BOTTOM = 36, 8, 122
_APART: Final = 50
"""Width of a bar that stands apart, with its label."""

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to draw: `name` for people, css: its class in the drawing, counts per bin."""

    name: str
    css: str
    counts: Counts

    @property
    def shares(self) -> Shares:
        return self.counts / max(1, int(self.counts.sum()))


def drawing(title: str, bins: Bins, samples: Sequence[Sample]) -> str:
    """SVG. samples: the reference first, drawn as filled bars; the others as outlines or ticks."""
    numeric = bins.edges is not None or bins.values is not None
    body, height = (_histogram if numeric else _bars)(bins, samples)
    told = escape(f"{title}: {'; '.join(_told(bins, s) for s in samples)}")
    return (
        f'<svg class="distribution" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{told}">{body}</svg>'
    )


def legend(samples: Sequence[Sample]) -> str:
    """HTML: what the colours mean."""
    keys = "".join(
        f'<span class="key"><i class="{s.css}"></i>{escape(s.name)}</span>' for s in samples
    )
    return f'<p class="legend">{keys}</p>'


def _told(bins: Bins, sample: Sample) -> str:
    """A sample in words: its most frequent bins."""
    shares = sample.shares
    top = np.argsort(-shares, kind="stable")[:3]
    said = ", ".join(f"{bins.labels[i]} {percent(float(shares[i]))}" for i in top if shares[i] > 0)
    return f"{sample.name}: {said or 'no values'}"


def _hint(label: str, samples: Sequence[Sample], shares: Sequence[float]) -> str:
    said = ", ".join(
        f"{s.name} {percent(float(f'{v:.3g}'))}" for s, v in zip(samples, shares, strict=True)
    )
    return f"<title>{escape(label)}: {escape(said)}</title>"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _histogram(bins: Bins, samples: Sequence[Sample]) -> tuple[str, int]:
    shares = np.stack([s.shares for s in samples])
    seen = shares.max(axis=0) > 0
    # The ends beyond all reference values are drawn where something lies there.
    main = [i for i in range(bins.n_main) if 0 < i < bins.n_main - 1 or seen[i]]
    apart = [i for i in range(bins.n_main, bins.n) if seen[i] or bins.labels[i] == "missing"]
    right = WIDTH - 4 - _APART * len(apart)
    step = (right - _LEFT - 16) / len(main)
    # A narrow window may lie in one bin: its bar is cut off rather than all others made flat.
    common = float(shares[:2].max())
    top = float(shares.max())
    top = max(top if top <= CUT * common else (CUT - 0.5) * common, 1e-9)
    scale = (_BOTTOM - _TOP) / top
    heights = np.minimum(shares * scale, _BOTTOM - _TOP)
    # (bin, left, right) of every bar.
    places = [(b, _LEFT + k * step, _LEFT + (k + 1) * step) for k, b in enumerate(main)]
    places += [
        (b, right + k * _APART + 12, right + (k + 1) * _APART - 12) for k, b in enumerate(apart)
    ]
    out = [
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>',
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{_TOP}" y2="{_TOP}"/>',
        _text(_LEFT - 4, _TOP + 4, percent(float(f"{top:.2g}")), "end"),
        _text(_LEFT - 4, _BOTTOM + 4, "0", "end"),
    ]
    for b, x1, x2 in places:
        if (height := heights[0, b]) > 0:
            kind = "reference" if b < bins.n_main else "reference apart"
            y = _n(_BOTTOM - height)
            width, tall = _n(max(0.5, x2 - x1 - 0.6)), _n(height)
            out.append(
                f'<rect class="{kind}" x="{_n(x1)}" y="{y}" width="{width}" height="{tall}"/>'
            )
    for k, sample in enumerate(samples[1:], 1):
        out.append(f'<path class="{sample.css}" d="{_outline(places, heights[k], right)}"/>')
        b, x1, x2 = max(places, key=lambda place: shares[k, place[0]])
        if shares[k, b] > top:
            said = f"↑ {percent(float(f'{shares[k, b]:.2g}'))}"
            out.append(_text(x1 - 3, _TOP + 10, said, "end"))
    for b, x1, x2 in places:
        hint = _hint(bins.labels[b], samples, shares[:, b].tolist())
        out.append(
            f'<rect class="hit" x="{_n(x1)}" y="{_TOP}" width="{_n(x2 - x1)}" '
            f'height="{_BOTTOM - _TOP}">{hint}</rect>'
        )
    out += _ticks(bins, main, step)
    for b, x1, x2 in places[len(main) :]:
        words = {"between known values": "other values"}.get(bins.labels[b], bins.labels[b])
        first, _, second = words.partition(" ")
        out.append(_text((x1 + x2) / 2, _BOTTOM + 14, first))
        out.append(_text((x1 + x2) / 2, _BOTTOM + 25, second) if second else "")
    return "".join(out), HEIGHT


def _outline(places: Sequence[tuple[int, float, float]], heights: Shares, right: float) -> str:
    """Steps over the bars; those that stand apart each have a step of their own."""
    path: list[str] = []
    previous = None
    for b, x1, x2 in places:
        y = _n(_BOTTOM - heights[b])
        alone = x1 >= right
        if alone and heights[b] <= 0:
            continue
        begin = f"M{_n(x1)} {_BOTTOM}" if alone or previous is None else ""
        path.append(f"{begin}L{_n(x1)} {y}H{_n(x2)}")
        if alone:
            path.append(f"V{_BOTTOM}")
        previous = b
    return "".join(path)


def _ticks(bins: Bins, main: Sequence[int], step: float) -> list[str]:
    out: list[str] = []
    if bins.values is not None:
        every = -(-len(main) // 8)
        for k, b in list(enumerate(main))[::every]:
            label = bins.labels[b].replace("below ", "<").replace("above ", ">")
            if bins.values is not None and 0 < b < bins.n_main - 1:
                label = f"{bins.values[b - 1]:.3g}"
            out.append(_text(_LEFT + (k + 0.5) * step, _BOTTOM + 14, label))
        return out
    assert bins.edges is not None
    # Borders with a finite value, by their place on the axis.
    borders = [(k, bins.edges[b]) for k, b in enumerate(main) if b > 0]
    if main[-1] < bins.n_main - 1:
        borders.append((len(main), bins.edges[-2]))
    chosen = np.unique(np.linspace(0, len(borders) - 1, 6).round().astype(int))
    for i in chosen:
        k, value = borders[i]
        out.append(_text(_LEFT + k * step, _BOTTOM + 14, f"{value:.3g}"))
    return out


def _bars(bins: Bins, samples: Sequence[Sample]) -> tuple[str, int]:
    shares = np.stack([s.shares for s in samples])
    ranked = np.argsort(-shares[:, : bins.n_main].max(axis=0), kind="stable")
    shown = sorted(ranked[:MOST_CATEGORIES].tolist())
    rows = [(bins.labels[i], shares[:, i], "") for i in shown]
    if (rest := bins.n_main - len(shown)) > 0:
        others = shares[:, ranked[MOST_CATEGORIES:]].sum(axis=1)
        rows.append((f"{rest} others", others, ""))
    rows += [(bins.labels[i], shares[:, i], " apart") for i in range(bins.n_main, bins.n)]
    top = max(max(float(row[1].max()) for row in rows), 1e-9)
    left, right = 132, WIDTH - 52
    scale = (right - left) / top
    out: list[str] = []
    y, divided = 4.0, False
    for name, row, css in rows:
        if css and not divided:
            divided = True
            y += 4
            out.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{_n(y)}" y2="{_n(y)}"/>')
            y += 4
        short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
        out.append(_text(left - 6, y + 13, short, "end"))
        out.append(
            f'<rect class="reference{css}" x="{left}" y="{_n(y + 2)}" '
            f'width="{_n(row[0] * scale)}" height="{ROW - 5}"/>'
        )
        for k, sample in enumerate(samples[1:], 1):
            x, tall = _n(left + row[k] * scale), (ROW - 5 if k == 1 else ROW - 1)
            top_y = y + 2 if k == 1 else y
            out.append(
                f'<path class="{sample.css} tick" d="M{left} {_n(y + ROW / 2)}H{x}'
                f'M{x} {_n(top_y)}V{_n(top_y + tall)}"/>'
                if k == 1
                else f'<path class="{sample.css} tick" d="M{x} {_n(top_y)}V{_n(top_y + tall)}"/>'
            )
        out.append(_text(WIDTH - 2, y + 13, percent(float(f"{row[1]:.2g}")), "end"))
        hint = _hint(name, samples, row.tolist())
        out.append(
            f'<rect class="hit" x="0" y="{_n(y)}" width="{WIDTH}" height="{ROW}">{hint}</rect>'
        )
        y += ROW
    return "".join(out), int(y + 4)
