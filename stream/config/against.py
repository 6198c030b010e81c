"""The key `against`: an earlier part of the stream that windows are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...detectors.windows import Earlier, WindowSpec
from ...schemas.errors import ABSENT
from ...schemas.units import TimeWindow, format_duration, parse_duration_ms
from .values import Mistake, mistaken, nearest, wrong

DETECTORS: Final = (
    "ks", "missing_rate", "chi_squared", "cramer_von_mises", "psi", "jensen_shannon", "fisher",
)  # fmt: skip
"""Those that read counts alone. The others read sums too, which panes keep relative to the fitted
reference, or ask what that reference had."""

MOST_PERIODS: Final = 100
_EXAMPLE: Final = "write for example {sliding: 7d} or {period: 1w, periods: 4}"
_KEYS: Final = ("sliding", "lag", "period", "periods")


@dataclass(frozen=True, slots=True)
class Against:
    """A window [s, e) is compared with either of

    sliding     [s - lag - sliding, s - lag)
    seasonal    [s - k·period, e - k·period) for k = 1 … periods, taken together

    All in milliseconds; the other pair is 0.
    """

    sliding_ms: int = 0
    lag_ms: int = 0
    period_ms: int = 0
    periods: int = 0

    def parts(self, window: WindowSpec) -> Sequence[Earlier]:
        """What a window in time is compared with."""
        assert isinstance(window, TimeWindow)
        if self.sliding_ms:
            return [Earlier(self.sliding_ms, window.size_ms + self.lag_ms)]
        return [Earlier(window.size_ms, k * self.period_ms) for k in range(1, self.periods + 1)]

    def needed_ms(self, window: WindowSpec) -> int:
        """How far it reaches back from a window's end."""
        return max(part.lag_ms + part.size_ms for part in self.parts(window))


def read_against(value: object, data: Mapping[str, Any]) -> Against:
    """data: the keys above it that are themselves right."""
    if not isinstance(value, Mapping):
        rule = "against is a mapping: the length of a sliding reference, or a period and how many"
        raise wrong(value, rule, _EXAMPLE)
    mistakes: list[Mistake] = []
    for key in value:
        if key not in _KEYS:
            near = nearest(key, _KEYS)
            remedy = f"write {near}" if near else f"remove it; the keys are {', '.join(_KEYS)}"
            mistakes.append(Mistake((key,), ABSENT, "there is no such key", remedy))
    if ("sliding" in value) == ("period" in value):
        rule = "against has either `sliding`, a length, or `period`, a cycle of the stream"
        mistakes.append(Mistake((), value, rule, _EXAMPLE))
    other, this = ("periods", "sliding") if "sliding" in value else ("lag", "period")
    if other in value and not mistakes:
        rule = f"`{other}` does not go with `{this}`"
        mistakes.append(Mistake((other,), value[other], rule, "remove it"))
    lengths: dict[str, int] = {}
    for key, least_ms in (("sliding", 1), ("lag", 0), ("period", 1)):
        if key in value:
            lengths[key] = _length(key, value[key], least_ms, data.get("pane_ms"), mistakes)
    periods = value.get("periods", 1)
    if type(periods) is not int or not 1 <= periods <= MOST_PERIODS:
        rule = f"periods is a whole number from 1 to {MOST_PERIODS}"
        mistakes.append(Mistake(("periods",), periods, rule, "write for example 4"))
    if mistakes:
        raise mistaken(*mistakes)
    if "sliding" in value:
        return Against(sliding_ms=lengths["sliding"], lag_ms=lengths.get("lag", 0))
    return Against(period_ms=lengths["period"], periods=periods)


def _length(
    key: str, value: object, least_ms: int, pane_ms: int | None, mistakes: list[Mistake]
) -> int:
    try:
        ms = parse_duration_ms(value)
    except ValueError as error:
        mistakes.append(Mistake((key,), value, str(error), "write for example 7d"))
        return least_ms
    if ms < least_ms:
        rule = f"{key} is longer than nothing"
        mistakes.append(Mistake((key,), value, rule, "write for example 7d"))
    elif pane_ms is not None and ms % pane_ms:
        rule = f"it is made of whole panes, so {key} is a multiple of {format_duration(pane_ms)}"
        near = format_duration(max(1, round(ms / pane_ms)) * pane_ms)
        mistakes.append(Mistake((key,), value, rule, f"write {near}, or choose another pane"))
    return ms


def against_mistakes(
    against: Against,
    windows: Sequence[WindowSpec],
    detectors: Mapping[str, Sequence[str]],
    *,
    vectors: Sequence[str],
    budget: bool,
    lateness_ms: int,
    retention_ms: int,
) -> list[Mistake]:
    """What does not go with it elsewhere in the model."""
    mistakes: list[Mistake] = []
    for i, window in enumerate(windows):
        at = ("windows", i)
        if not isinstance(window, TimeWindow):
            rule = "with `against`, windows have a length in time: an earlier part has to be found"
            mistakes.append(Mistake(at, window.label, rule, "write a duration, such as 1h"))
            continue
        if against.period_ms and window.size_ms > against.period_ms:
            rule = (
                f"a window longer than the period, {format_duration(against.period_ms)}, would be "
                "compared with a part of itself"
            )
            mistakes.append(Mistake(at, window.label, rule, "write a shorter window"))
        needed_ms = against.needed_ms(window) + lateness_ms
        if needed_ms > retention_ms:
            rule = (
                f"panes are kept for {format_duration(retention_ms)} (retention), and this window "
                f"with what it is compared with needs them for {format_duration(needed_ms)}"
            )
            days = -(-needed_ms // 86_400_000)
            mistakes.append(Mistake(at, window.label, rule, f"write retention: {days}d"))
    for kind, names in detectors.items():
        for i, name in enumerate(names):
            if name not in DETECTORS:
                rule = (
                    f"with `against`, detectors are those that read counts alone: "
                    f"{', '.join(DETECTORS)}"
                )
                at = ("detectors", kind, i)
                mistakes.append(Mistake(at, name, rule, "take it out, or leave `against` out"))
    for name in vectors:
        rule = (
            "texts, vectors and groups are compared with the fitted reference only, and `against` "
            "asks for another"
        )
        mistakes.append(Mistake(("against",), name, rule, "give them a model of their own"))
    if budget:
        rule = (
            "levels that keep `false_alarms` are found for the fitted reference; against an earlier "
            "part of the stream they would not keep it"
        )
        mistakes.append(Mistake(("false_alarms",), ABSENT, rule, "write alpha: 0.01 in its place"))
    return mistakes
