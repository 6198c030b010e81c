"""The demo's page: one screen of a terminal, drawn from what was published so far.

Pure: a `Scene` in, lines of text out, as many as fit. Colour says how large a change is, not how
sure the test is: yellow is drift, red is drift by a standard deviation or a quarter of all flights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import set_cell_size
from rich.console import Group
from rich.text import Text

from ...detectors.profile import CategoricalProfile, Profile
from ...schemas.alert import Alert
from ...schemas.units import EventWindow, parse_window
from ..alert import wording
from ..alert.lifecycle import severity_of
from .flights import CATEGORICAL, DAY_MS, N_DAYS, NUMERIC, YEAR_MS, Truth
from .watch import Picture

ROWS: Final = ("prediction", "score", *CATEGORICAL, *NUMERIC)
UNITS: Final = {"distance": "mi", "temp": "°F", "wind_speed": "mph", "visibility": "mi",
                "precip": "in", "hour": "h"}  # fmt: skip
WIDE: Final = 98  # columns from which p-values have room
TALL: Final = 29  # lines from which the next steps have room beside five lines of alerts

BLIZZARD: Final = 38  # 8 February, as days from 1 January
MAY, JUNE, JULY_END = 120, 151, 211

QUIET, DRIFT, LARGE = _STYLES = ("green", "yellow", "bold red")
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NAME, _VALUE, _P, _HALF = 10, 8, 7, 3  # cells of a name, a value, a p-value, half a bar


@dataclass(frozen=True, slots=True)
class Scene:
    """All that one page shows.

    picture: what was published. reference: the profile of January. truth: what came of the flights.
    stream_ms: the stream's clock, event time; speed: its days per second. sent: events; rate: of
    them, per second. broker: its address. windows: labels as configured, in order.
    first: the first alert and the seconds from the broker's start to it.
    steps: what to do next, a command or a place, and why. over: the year has ended.
    """

    picture: Picture
    reference: Profile
    truth: Truth
    windows: Sequence[str]
    broker: str
    stream_ms: int
    speed: float
    sent: int
    rate: float
    first: tuple[Alert, float] | None
    steps: Sequence[tuple[str, str]]
    over: bool = False


def page(scene: Scene, width: int, height: int) -> Group:
    """The page for a terminal of `width` × `height` cells, never higher."""
    tall = height >= TALL
    top = [*_head(scene, width), *_table(scene, width, tall)]
    below = list(_steps(scene, width, tall))
    room = max(0, height - len(top) - len(below) - 1)
    lines = [*top, *_alerts(scene, width, room), *below]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Group(*lines[: max(1, height - 1)])


def _head(scene: Scene, width: int) -> Iterator[Text]:
    day = max(0, (scene.stream_ms - YEAR_MS) // DAY_MS)
    today = min(day, N_DAYS - 1)
    passed = datetime.fromtimestamp(scene.stream_ms / 1000, UTC)
    bar_width = max(10, min(40, width - 62))
    done = round(min(1.0, (day + 1) / N_DAYS) * bar_width)
    line = Text.assemble(
        (" driftline demo ", "bold reverse"), "  ",
        (f"{passed:%a} {passed.day:2} {passed:%B %Y}".ljust(21), "bold"),
        ("━" * done, "cyan"), ("─" * (bar_width - done), "dim"),
        ("  the year is over" if scene.over else f"  {scene.speed:g} days a second", "dim"),
    )  # fmt: skip
    yield line
    counts = scene.picture.counts
    left, cancelled = scene.truth.left[today], scene.truth.cancelled[today]
    lost = cancelled / max(1, left + cancelled)
    yield Text.assemble(
        " flights sent ", (f"{scene.sent:,}", "bold"), f" · read {counts.received:,}",
        f" · {scene.rate:,.0f}/s" if width >= 96 and not scene.over else "",
        f" · late {counts.late:,}" if counts.late else "",
        " · verdicts ", (f"{scene.picture.verdicts:,}", "bold"),
        f" · today {left:,.0f}, " if width < 96 else f" · today {left:,.0f} left, ",
        (f"{cancelled:,} cancelled", LARGE if lost >= 0.1 else DRIFT if lost >= 0.05 else ""),
    )  # fmt: skip
    said, came = scene.truth.shares(today)
    yield Text.assemble(
        " late, last 7 days: the model said ", (wording.percent(round(said, 3)), "bold"),
        ", really were ", (wording.percent(round(came, 3)), "bold"),
        (f"   Kafka at {scene.broker}" if width >= 90 else "", "dim"),
    )  # fmt: skip
    yield Text()


def _table(scene: Scene, width: int, tall: bool) -> Iterator[Text]:
    wide = width >= WIDE
    group = _VALUE + 2 + 2 * _HALF + 1 + (_P + 1 if wide else 0)
    titles = [f" {_fit('feature', _NAME)} {_fit('January', 9, right=True)}"]
    fills = [_fit(" bar: p, │ its level", len(titles[0]))]
    for label in scene.windows:
        title, fill = _window(scene.picture.windows.get(label), label, wide)
        titles.append(_fit(f"  {title}", group + 1))
        fills.append(_fit(f"  {fill}", group + 1))
    yield Text("".join(titles), "bold")
    yield Text("".join(fills), "dim")
    known = scene.reference.names
    for name in (row for row in ROWS if row in known):
        before = _fit(_baseline(scene.reference, name), 9, right=True)
        line = Text(f" {_fit(name, _NAME)} {before}")
        for label in scene.windows:
            line.append("  ")
            line.append_text(_cell(scene.picture, name, label, wide))
        yield line
    if tall:
        yield Text()


def _window(verdict: Mapping[str, Any] | None, label: str, wide: bool) -> tuple[str, str]:
    """Title and fill of a window."""
    spec = parse_window(label.partition(" hop ")[0])
    n = 0 if verdict is None else verdict["window"]["n"]
    if isinstance(spec, EventWindow):
        share = min(1.0, n / spec.events)
        fill = "full" if share == 1 else f"{math.floor(100 * share)}% full"
        return f"last {spec.events:,}{' flights' if wide else ''}", fill
    if verdict is None:
        return spec.label, "not full yet"
    end = datetime.fromisoformat(verdict["window"]["end"])
    return f"{spec.label} to {end.day} {end:%b}", f"{n:,} flights"


def _baseline(reference: Profile, name: str) -> str:
    f = next(f for f in reference.counted if f.name == name)
    if isinstance(f, CategoricalProfile):
        if name == "prediction":
            late = int(f.counts[f.categories.index("late")])
            return f"{wording.percent(round(late / f.n, 3))} late"
        return f"{len(f.categories)} kinds"
    unit = UNITS.get(name, "")
    return f"{_short(f.mean)} {unit}".strip()


def _cell(picture: Picture, name: str, label: str, wide: bool) -> Text:
    """The value, its bar and its p-value, of one feature in one window."""
    size = _VALUE + 2 + 2 * _HALF + (_P + 1 if wide else 0)
    verdict = picture.newest.get((name, label))
    absent = picture.missing.get((name, label))
    if absent is not None and (verdict is None or _weight(absent) > _weight(verdict)):
        verdict = absent
    if verdict is None or verdict["p_value"] is None:
        return Text(_fit("filling" if verdict is not None else "", size), "dim")
    style = _STYLES[_weight(verdict)]
    # A test with rare classes decides on the table with those pooled, too.
    p_value = max(verdict["p_value"], verdict["detail"].get("pooled", {}).get("p_value", 0.0))
    text = Text(_fit(_value(verdict), _VALUE, right=True), style)
    text.append(" ")
    text.append_text(bar(p_value, verdict["alpha"], style))
    if wide:
        small = wording.small(p_value).replace("< ", "<")
        text.append(f" {_fit(small, _P)}", style if verdict["drifted"] else "dim")
    return text


def _weight(verdict: Mapping[str, Any]) -> int:
    """0 quiet, 1 drift, 2 a large one."""
    if not verdict["drifted"]:
        return 0
    return 2 if severity_of(verdict) == "critical" else 1


def _short(value: float) -> str:
    """Three digits, and four decimals at most: 1,015, 36.5, 0.0021, 0."""
    if abs(value) >= 0.1:
        return wording.number(value)
    return f"{value:.4f}".rstrip("0").rstrip(".") or "0"


def _value(verdict: Mapping[str, Any]) -> str:
    """The window's mean, or the class whose share moved most and by how many points."""
    effect = verdict["effect"]
    if effect is None:
        return ""
    if verdict["detector"] == "missing_rate":
        return f"∅ {100 * effect['window']:.0f}%"
    if effect["kind"] != "share_shift":
        return _short(effect["window"])
    if verdict["feature"] == "prediction":
        share = effect["window"]
        share = share if effect["category"] == "late" else 1 - share
        return wording.percent(round(share, 3))
    category = "new" if effect["category"] == "(unseen)" else effect["category"]
    points = 100 * effect["value"]
    return f"{category} {points:+.1f}" if abs(points) < 10 else f"{category} {points:+.0f}"


def bar(p_value: float, alpha: float, style: str) -> Text:
    """How far a p-value has gone, with its level in the middle.

    Left of the mark log p over log alpha, from nothing to the level; right of it the rest of the
    way to p = 0, half of it at alpha squared.
    """
    reach = math.inf if p_value == 0 else math.log(p_value) / math.log(alpha)
    halves = (min(1.0, reach), 0.0 if reach <= 1 else 1.0 - 1.0 / reach)
    left, right = (_filled(half) for half in halves)
    return Text.assemble((left, style), ("│", "bold" if reach >= 1 else "dim"), (right, style))


def _filled(share: float) -> str:
    eighths = round(share * 8 * _HALF)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (_EIGHTHS[rest] if rest else "")
    return text.ljust(_HALF)


def _alerts(scene: Scene, width: int, room: int) -> Iterator[Text]:
    picture = scene.picture
    if room < 1:
        return
    large = sum(alert.severity == "critical" for alert in picture.firing.values())
    yield Text.assemble(
        (" alerts ", "bold"), f"{len(picture.firing)} firing, ",
        (f"{large} large", LARGE if large else ""), f" · {picture.n_alerts} since the start",
    )  # fmt: skip
    if not picture.alerts:
        waits = "a day has to fill first" if picture.counts.received else "the stages are starting"
        yield Text(f"   none yet: {waits}", "dim")
        return
    newest = list(reversed(picture.alerts))
    yield from (sentence(alert) for alert in newest[: room - 1])


def sentence(alert: Alert) -> Text:
    """An alert as a line of the page: its own summary, without what the page says already."""
    feature = alert.features[0].feature
    if alert.state == "resolved":
        when = wording.moment(alert.ends_at or alert.starts_at)
        return Text.assemble((" ✓ ", QUIET), (feature, "bold"), f" is back to January since {when}")
    # What the test decided on stands in the table.
    summary = (alert.summary.rpartition("; ")[0] or alert.summary).partition(", since ")[0]
    for words, shorter in (
        (f" of model {alert.model}", ""),
        (" reference standard deviations", " sd"),
        (" 00:00 UTC", ""),
    ):
        summary = summary.replace(words, shorter)
    style = LARGE if alert.severity == "critical" else DRIFT
    before, name, after = summary.partition(feature)
    return Text.assemble((" ▲ ", style), before, (name, "bold"), after)


def _steps(scene: Scene, width: int, tall: bool) -> Iterator[Text]:
    if tall:
        yield Text()
    if scene.first is None:
        yield Text(" Ctrl-C ends it", "dim")
        return
    alert, seconds = scene.first
    told = f" First alert: {alert.features[0].feature}, {seconds:.1f} s after the broker was up."
    if scene.over:
        told = " The year is over, and the broker still up."
    yield Text(f"{told} In another terminal:", "cyan")
    widest = max(len(command) for command, _ in scene.steps)
    for command, why in scene.steps[: 3 if tall else 1]:
        fits = widest + len(why) + 5 <= width
        yield Text.assemble("   ", (_fit(command, widest), "bold"), (f"  {why}" * fits, "dim"))


def date(ms: int) -> str:
    """`8 February 2013`."""
    day = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{day.day} {day:%B %Y}"


def story(truth: Truth, stream_ms: int) -> list[str]:
    """What the year up to `stream_ms` had in it, for those who look at its alerts."""
    day = int((stream_ms - YEAR_MS) // DAY_MS)
    lines: list[str] = []
    if day > BLIZZARD:
        left = int(truth.left[BLIZZARD : BLIZZARD + 2].sum())
        cancelled = int(truth.cancelled[BLIZZARD : BLIZZARD + 2].sum())
        lines.append(
            f"8 and 9 February, a blizzard: {cancelled:,} flights cancelled, {left:,} left;"
            " visibility, wind_speed and hour moved, and came back."
        )
    if day > JUNE:
        until = min(day, JULY_END)
        said, came = truth.shares(until, 28)
        lines.append(
            "Spring and summer: temp is not January's since seasons differ, which is no defect."
            " But the model learnt that cold means late. By"
            f" {date(YEAR_MS + until * DAY_MS)} it said {wording.percent(round(said, 3))} of four"
            f" weeks' flights would be late, and {wording.percent(round(came, 3))} were:"
            " its score had told so all along, without a label."
        )
    if day > MAY:
        lines.append("Schedules: dest and carrier moved in small steps, which took weeks to show.")
    return lines


def _fit(text: str, size: int, *, right: bool = False) -> str:
    """`text` in exactly `size` cells."""
    if right and len(text) < size:
        text = text.rjust(size)
    return set_cell_size(text, size)
