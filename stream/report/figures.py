"""Plotly figures of a report: effect over features and time, and one feature over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any, Final

import numpy as np

from ...schemas.units import iso_ms
from ..alert.wording import DETECTORS, number, small
from ..pages.figures import ALARM, COLOURS, DASHES, DIVERGING, NEUTRAL, plain, significant
from .bins import Bins, Counts, quantiles
from .record import Look, Part, Series, Slices, UnitRecord

MOST_ROWS: Final = 120
"""Features in the heatmap."""
SMALLEST: Final = 1e-300
MOVERS: Final = 3
"""Categories whose share is drawn over time: those that moved most."""
LABEL: Final = 18
FILL: Final = "rgba(0,114,178,0.22)"
BAND: Final = "rgba(213,94,0,0.13)"

Figure = dict[str, Any]

# Letters of a name that an axis has room for.
_TITLE: Final = 15


@dataclass(frozen=True, slots=True)
class Clock:
    """Slices as a time axis. `axis(0)` places a value at its slice's start, `axis(1)` at its end."""

    slices: Slices

    @property
    def n(self) -> int:
        return self.slices.n

    def ms(self, at: float) -> int:
        return int(((self.slices.first or 0) + at) * self.slices.length_ms)

    def axis(self, shift: float) -> dict[str, Any]:
        return {"x0": iso_ms(self.ms(shift))[:-1], "dx": self.slices.length_ms}

    def row(self, value: Callable[[int], Any]) -> list[Any]:
        """`value` of every slice, in order."""
        first = self.slices.first or 0
        return [value(first + i) for i in range(self.n)]

    @property
    def bounds(self) -> list[str]:
        return [iso_ms(self.ms(0))[:-1], iso_ms(self.ms(self.n))[:-1]]


def detector_name(name: str) -> str:
    return DETECTORS.get(name, name.replace("_", " "))


def found_by(detector: str, part: str) -> str:
    """`KS`, `KS against last week`."""
    return f"{detector_name(detector)}{against(part)}"


def against(part: str) -> str:
    """` against last week`, or nothing for the fitted reference."""
    return f" against {part}" if part else ""


def bands(clock: Clock, drifted: Sequence[bool]) -> list[tuple[int, int]]:
    """Runs of slices [a, b) in which something drifted."""
    edges = np.flatnonzero(np.diff([False, *drifted, False]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def any_drift(clock: Clock, looks: Sequence[Series]) -> list[bool]:
    return clock.row(lambda at: any(s.looks[at].drifted > 0 for s in looks if at in s.looks))


# --- features × time --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One row: its label, and the series it is made of."""

    label: str
    series: Sequence[Series]

    def strongest(self, at: int) -> Look | None:
        found = [s.looks[at] for s in self.series if at in s.looks]
        return max(found, key=lambda look: abs(look.strength), default=None)


def heat_rows(
    record: UnitRecord, features: Sequence[str], window: str, part: str = ""
) -> list[HeatRow]:
    """A row per feature that was tested in windows of a size against a part of the stream, "" for the
    fitted reference; one more for its missing values where their share moved."""
    rows: list[HeatRow] = []
    for feature in features:
        wanted = (feature, window, part)
        found = {d: s for (f, d, w, p), s in record.series.items() if (f, w, p) == wanted}
        values = [s for d, s in found.items() if d != "missing_rate"]
        if values:
            rows.append(HeatRow(_short(feature), values))
        missing = found.get("missing_rate")
        if missing is not None and any(
            k.drifted or abs(k.value or 0.0) >= 0.01 for k in missing.looks.values()
        ):
            rows.append(HeatRow(f"{_short(feature)} · missing", [missing]))
    return rows


def heatmap(clock: Clock, rows: Sequence[HeatRow]) -> tuple[Figure, int]:
    """The figure and its height in pixels. Colour: effect; a line: drift."""
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    x: list[str | None] = []
    y: list[int | None] = []
    for k, row in enumerate(rows):
        looks = clock.row(row.strongest)
        z.append(significant([None if look is None else look.strength for look in looks], 2))
        text.append(["" if look is None else _told(look) for look in looks])
        for a, b in bands(clock, any_drift(clock, row.series)):
            x += [iso_ms(clock.ms(a))[:-1], iso_ms(clock.ms(b))[:-1], None]
            y += [k, k, None]
    labels = [plain(row.label) for row in rows]
    height = 60 + 22 * len(rows)
    data: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            **clock.axis(0.5),
            "y": list(range(len(rows))),
            "z": z,
            "text": text,
            "zmin": -1,
            "zmax": 1,
            "colorscale": [list(stop) for stop in DIVERGING],
            "showscale": False,
            "ygap": 2,
            "hovertemplate": "%{text}<br>%{x|%Y-%m-%d %H:%M}<extra></extra>",
            "hoverongaps": False,
        },
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": "#808080", "width": 2},
            "hoverinfo": "skip",
            "showlegend": False,
        },
    ]
    layout = {
        "xaxis": {"type": "date", "range": clock.bounds},
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": labels,
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
            "ticks": "",
            "showline": False,
        },
        "height": height,
        "margin": {"t": 6, "b": 40},
    }
    return {"data": data, "layout": layout}, height


def _told(look: Look) -> str:
    p = "" if look.p is None else f", p {small(look.p)}"
    drift = "drift" if look.drifted else "quiet"
    return f"effect {number(look.value)}{p}: {drift}"


def _short(name: str) -> str:
    return name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"


# --- one feature over time --------------------------------------------------------------------


def over_time(
    record: UnitRecord,
    clock: Clock,
    feature: str,
    index: int | None,
    windows: Sequence[str],
    onsets: Sequence[str],
) -> tuple[Figure, int] | None:
    """What the feature did, above what its tests said, those against each reference for themselves;
    with the height in pixels. None without either.

    index: of the feature in the profile. windows: sizes in their order. onsets: times.
    """
    found = {(d, w, part): s for (f, d, w, part), s in record.series.items() if f == feature}
    panels: list[tuple[str, list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]] = []
    if index is not None and record.by_slice:
        panels.append(_values(record, clock, index))
    for part in dict.fromkeys(part for (_, _, part), s in found.items() if s.by_p):
        own = {(d, w): s for (d, w, p), s in found.items() if p == part and s.by_p}
        panels.append(_p_values(clock, own, windows, part))
    # They have no earlier part of the stream to be compared with.
    for detector in sorted({d for (d, _, _), s in found.items() if not s.by_p}):
        own = {(d, w): s for (d, w, _), s in found.items() if d == detector and not s.by_p}
        panels.append(_statistics(clock, own, windows))
    if not panels:
        return None
    layout: dict[str, Any] = {
        "xaxis": {"type": "date", "range": clock.bounds, "anchor": "y"},
        "shapes": [],
        "margin": {"t": 34, "b": 34, "l": 52 + 14 * any("\n" in title for title, *_ in panels)},
        "showlegend": True,
        "legend": {"traceorder": "normal", "font": {"size": 11}},
    }
    data: list[dict[str, Any]] = []
    space = 0.09 if len(panels) > 1 else 0.0
    share = (1 - space * (len(panels) - 1)) / len(panels)
    # The last panel is at the bottom, on the x axis itself.
    for k, (title, traces, axis, shapes) in enumerate(reversed(panels)):
        name = "" if k == 0 else str(k + 1)
        low = k * (share + space)
        layout[f"yaxis{name}"] = {
            **axis,
            "title": {"text": "<br>".join(map(plain, title.splitlines())), "font": {"size": 11}},
            "domain": [round(low, 4), round(min(1.0, low + share), 4)],
            "anchor": "x",
        }
        data += [{**trace, "yaxis": f"y{name}"} for trace in traces]
        layout["shapes"] += [{**shape, "yref": f"y{name}"} for shape in shapes]
    for a, b in bands(clock, any_drift(clock, list(found.values()))):
        layout["shapes"].append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": iso_ms(clock.ms(a))[:-1],
                "x1": iso_ms(clock.ms(b))[:-1],
                "y0": 0,
                "y1": 1,
                "fillcolor": BAND,
                "line": {"width": 0},
                "layer": "below",
            }
        )
    for onset in onsets:
        edge = {"x0": onset.removesuffix("Z"), "x1": onset.removesuffix("Z"), "y0": 0, "y1": 1}
        line = {"color": ALARM, "width": 1.5, "dash": "dash"}
        layout["shapes"].append(
            {"type": "line", "xref": "x", "yref": "paper", **edge, "line": line}
        )
    return {"data": data, "layout": layout}, 90 + 130 * len(panels)


Panel = tuple[str, list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]


def _level(value: float, colour: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": colour, "width": 1, "dash": "dot"},
    }


def _p_values(
    clock: Clock, found: dict[tuple[str, str], Series], windows: Sequence[str], part: str
) -> Panel:
    levels = {key: -log10(max(s.level, SMALLEST)) for key, s in found.items()}
    most = float(np.ceil(max(10.0, 3 * max(levels.values()))))
    # Missing values last: the test of the values themselves has the plain line.
    detectors = sorted({d for d, _ in found}, key=lambda d: (d == "missing_rate", d))
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for detector in detectors:
        for w, window in enumerate(windows):
            series = found.get((detector, window))
            if series is None:
                continue
            looks = clock.row(series.looks.get)
            p = [None if k is None else max(k.p or 0.0, SMALLEST) for k in looks]
            colour = COLOURS[w % len(COLOURS)]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": plain(f"{detector_name(detector)} {window}{against(part)}"),
                    **clock.axis(1),
                    "y": significant([None if v is None else min(most, -log10(v)) for v in p], 3),
                    "customdata": [
                        None if k is None else significant([k.statistic, v], 3)
                        for k, v in zip(looks, p, strict=True)
                    ],
                    "hovertemplate": "p %{customdata[1]:.2g}, statistic %{customdata[0]:.3g}"
                    "<br>%{x|%Y-%m-%d %H:%M}",
                    "connectgaps": True,
                    **_waiting(detector, series),
                    "line": {
                        "color": colour,
                        "width": 1.6,
                        "dash": DASHES[detectors.index(detector) % len(DASHES)],
                    },
                }
            )
            shapes.append(_level(round(levels[detector, window], 3), colour))
    if len(set(levels.values())) == 1:
        shapes = [{**shapes[0], "line": {"color": NEUTRAL, "width": 1.2, "dash": "dot"}}]
    # As long as the panel is high; the legend has the whole name.
    under = part if len(part) <= _TITLE else f"{part[: _TITLE - 1]}…"
    title = "−log₁₀ p" + (f"\n{under}" if part else "")
    return title, traces, {"range": [0, most * 1.04]}, shapes


def _waiting(detector: str, series: Series) -> dict[str, Any]:
    """Tests of missing values that never drifted are shown when asked for in the legend."""
    idle = detector == "missing_rate" and not any(k.drifted for k in series.looks.values())
    return {"visible": "legendonly"} if idle else {}


def _statistics(
    clock: Clock, found: dict[tuple[str, str], Series], windows: Sequence[str]
) -> Panel:
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    name = detector_name(next(iter(found))[0])
    for w, window in enumerate(windows):
        for (_, own), series in found.items():
            if own != window:
                continue
            colour = COLOURS[w % len(COLOURS)]
            looks = clock.row(series.looks.get)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": plain(f"{name} {window}"),
                    **clock.axis(1),
                    "y": significant([None if k is None else k.statistic for k in looks]),
                    "connectgaps": True,
                    "line": {"color": colour, "width": 1.6},
                }
            )
            shapes.append(_level(series.level, colour))
    return f"{name} statistic", traces, {}, shapes


def _values(record: UnitRecord, clock: Clock, index: int) -> Panel:
    """The feature itself: a mean and quantiles, or the shares of what moved most."""
    parts = clock.row(record.by_slice.get)
    if index >= record.profile.n_numeric:
        bins = record.bins.features[index]
        return _shares(bins, clock, [None if p is None else record.counts(p, index) for p in parts])
    return _location(record, clock, index, parts)


def _line(clock: Clock, name: str, y: Sequence[float | None], **line: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        **clock.axis(0.5),
        "y": significant(y),
        "line": {"width": 1.6, **line},
        "showlegend": False,
        "hovertemplate": f"{plain(name)} %{{y:.4g}}<br>%{{x|%Y-%m-%d %H:%M}}<extra></extra>",
    }


def _location(record: UnitRecord, clock: Clock, index: int, parts: Sequence[Part | None]) -> Panel:
    f, bins = record.profile.numeric[index], record.bins.features[index]
    mean = _line(
        clock,
        "mean",
        [None if p is None else record.mean(p, index) for p in parts],
        color=COLOURS[0],
    )
    shapes = [_level(float(f"{f.mean:.4g}"), NEUTRAL)]
    if bins.edges is None:
        return "mean", [mean], {}, shapes
    shares = (0.1, 0.9)

    def ends(p: Part | None) -> list[float | None]:
        if p is None:
            return [None, None]
        low, high = float(p.low[index]), float(p.high[index])
        return quantiles(bins, record.counts(p, index), shares, low, high)

    found = [ends(p) for p in parts]
    edge = {"color": COLOURS[0], "width": 0.6}
    traces = [
        _line(clock, "10 %", [q[0] for q in found], **edge),
        {
            **_line(clock, "90 %", [q[1] for q in found], **edge),
            "fill": "tonexty",
            "fillcolor": FILL,
        },
        mean,
    ]
    low, high = float(f.values[0]), float(f.values[-1])
    before = quantiles(bins, bins.reference, shares, low, high)
    shapes += [_level(q, NEUTRAL) for q in significant(before) if q is not None]
    return "mean, 10–90 %", traces, {}, shapes


def _shares(bins: Bins, clock: Clock, rows: Sequence[Counts | None]) -> Panel:
    def shares(c: Counts) -> np.ndarray[Any, np.dtype[np.float64]]:
        return c / max(1, int(c.sum()))

    before = shares(bins.reference)
    series = np.stack([shares(c) for c in rows if c is not None])
    moved = np.abs(series - before).mean(axis=0)
    ranked = [b for b in np.argsort(-moved, kind="stable").tolist() if moved[b] > 0]
    chosen = sorted(ranked[:MOVERS])
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for k, b in enumerate(chosen):
        colour = COLOURS[3 + k % 3]
        y = [None if c is None else float(shares(c)[b]) for c in rows]
        trace = _line(clock, _short(bins.labels[b]), y, color=colour, dash=DASHES[k])
        traces.append({**trace, "showlegend": True, "legendgroup": "shares"})
        shapes.append(_level(float(f"{before[b]:.4g}"), colour))
    return "share", traces, {"tickformat": ".0%", "rangemode": "tozero"}, shapes
