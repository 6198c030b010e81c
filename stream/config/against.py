"""The key `against`: what windows are compared with, beside or in place of the fitted reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from ...detectors.windows import Earlier, WindowSpec
from ...schemas.errors import ABSENT
from ...schemas.units import FalseAlarms, TimeWindow, format_duration, parse_duration_ms
from .values import Mistake, mistaken, nearest, wrong

DETECTORS: Final = (
    "ks", "missing_rate", "chi_squared", "cramer_von_mises", "psi", "jensen_shannon", "fisher",
)  # fmt: skip
"""Those that read counts alone. The others read sums too, which panes keep relative to the fitted
reference, or ask what that reference had."""

FITTED: Final = "reference"
"""The fitted reference, in the list and in verdicts."""
MOST_PERIODS: Final = 100
_EXAMPLE: Final = "write for example {sliding: 7d} or {period: 1w, periods: 4}"
_KEYS: Final = ("sliding", "lag", "period", "periods", "name")


@dataclass(frozen=True, slots=True)
class Part:
    """An earlier part of the stream. A window [s, e) is compared with either of

    sliding     [s - lag - sliding, s - lag)
    seasonal    [s - k·period, e - k·period) for k = 1 … periods, taken together

    All in milliseconds; the other pair is 0. name: in verdicts.
    """

    name: str
    sliding_ms: int = 0
    lag_ms: int = 0
    period_ms: int = 0
    periods: int = 0

    def of(self, window: WindowSpec) -> Sequence[Earlier]:
        """What a window is compared with; nothing where it cannot be compared with this: one in
        events, or one longer than the period, which would be compared with a part of itself."""
        if not isinstance(window, TimeWindow):
            return []
        if self.sliding_ms:
            return [Earlier(self.sliding_ms, window.size_ms + self.lag_ms)]
        if window.size_ms > self.period_ms:
            return []
        return [Earlier(window.size_ms, k * self.period_ms) for k in range(1, self.periods + 1)]


@dataclass(frozen=True, slots=True)
class Against:
    """What windows are compared with. fitted: the fitted reference is among it. parts: at least one."""

    fitted: bool
    parts: tuple[Part, ...]

    def of(self, window: WindowSpec) -> Sequence[Sequence[Earlier]]:
        """For each part what a window is compared with, see `Part.of`."""
        return [part.of(window) for part in self.parts]

    def looks_per_pane(self, windows: Sequence[WindowSpec], pane_ms: int) -> float:
        """How many looks at windows against earlier parts there are for each pane that closes."""
        return sum(
            pane_ms / (window.hop_ms or pane_ms)
            for part in self.parts
            for window in windows
            if isinstance(window, TimeWindow) and part.of(window)
        )


def read_against(value: object, data: Mapping[str, Any]) -> Against | None:
    """What the key says; None where that is the fitted reference alone.

    data: the keys above it that are themselves right.
    """
    several = isinstance(value, list | tuple)
    entries: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    if not entries:
        rule = "against is a list of at least one thing to compare with"
        raise wrong(value, rule, "write for example [reference, {sliding: 7d}]")
    mistakes: list[Mistake] = []
    parts: list[Part] = []
    names: list[str] = []
    for i, entry in enumerate(entries):
        part, wrong_keys = _part(entry, data)
        mistakes += [
            Mistake((i, *m.at) if several else m.at, m.value, m.rule, m.remedy) for m in wrong_keys
        ]
        if part is not None:
            parts.append(part)
        if not wrong_keys:
            name = FITTED if part is None else part.name
            if name in names:
                rule = f"each has a name of its own in verdicts, and `{name}` is there already"
                mistakes.append(Mistake((i,), name, rule, "remove it, or give it another `name`"))
            names.append(name)
    if mistakes:
        raise mistaken(*mistakes)
    return Against(FITTED in names, tuple(parts)) if parts else None


def _part(value: object, data: Mapping[str, Any]) -> tuple[Part | None, list[Mistake]]:
    """An entry of the list, None for the fitted reference or where it is wrong."""
    if value == FITTED:
        return None, []
    mistakes: list[Mistake] = []
    if not isinstance(value, Mapping):
        rule = (
            "against is a mapping: the length of a sliding reference, or a period and how many; or "
            f"a list of such, in which the word `{FITTED}` is the fitted one"
        )
        return None, [Mistake((), value, rule, _EXAMPLE)]
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
    name = value.get("name", _described(value))
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= 50 or not name.isprintable():
        rule = "a name has 1 to 50 printable characters"
        mistakes.append(Mistake(("name",), name, rule, "write for example last week"))
    elif name.strip() == FITTED:
        rule = f"`{FITTED}` is the name of the fitted reference"
        mistakes.append(Mistake(("name",), name, rule, "write for example last week"))
    if mistakes:
        return None, mistakes
    if "sliding" in value:
        lag_ms = lengths.get("lag", 0)
        return Part(name.strip(), sliding_ms=lengths["sliding"], lag_ms=lag_ms), []
    return Part(name.strip(), period_ms=lengths["period"], periods=periods), []


def _described(value: Mapping[Any, object]) -> str:
    """`sliding 7d lag 1d`, `period 1w × 4`: the name of a part that was given none, of its lengths as
    they are written."""
    if "sliding" in value:
        lag = str(value.get("lag", "0")).strip()
        behind = "" if lag.strip("0hmsdw") == "" else f" lag {lag}"
        return f"sliding {str(value['sliding']).strip()}{behind}"
    periods = value.get("periods", 1)
    return f"period {str(value.get('period')).strip()}" + (f" × {periods}" if periods != 1 else "")


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
    budget: FalseAlarms | None,
    lateness_ms: int,
    retention_ms: int,
) -> list[Mistake]:
    """What does not go with it elsewhere in the model.

    What cannot be compared with a part of the stream is compared with the fitted reference alone,
    where that is in the list; it is a mistake where nothing would be left to be compared.
    """
    mistakes = _window_mistakes(against, windows, lateness_ms, retention_ms)
    for kind, names in detectors.items():
        out = [i for i, name in enumerate(names) if name not in DETECTORS]
        # How features go together is known of the fitted reference only, as of vectors.
        if against.fitted and (len(out) < len(names) or kind == "multivariate"):
            continue
        rule = (
            f"an earlier part of the stream is tested by detectors that read counts alone: "
            f"{', '.join(DETECTORS)}"
        )
        for i in out[:1] if against.fitted else out:
            remedy = f"take it out, or write {FITTED} into the list, too, which it is compared with"
            if against.fitted:
                remedy = "name one of them, too, or leave `against` out"
            mistakes.append(Mistake(("detectors", kind, i), names[i], rule, remedy))
    for name in () if against.fitted else vectors:
        rule = (
            "texts, vectors and groups are compared with the fitted reference only, and `against` "
            "asks for another"
        )
        remedy = f"write {FITTED} into the list, too, or give them a model of their own"
        mistakes.append(Mistake(("against",), name, rule, remedy))
    if budget is not None and not (against.fitted and budget.about):
        rule = (
            "levels that keep `false_alarms` are found for the fitted reference; against an earlier "
            "part of the stream they would not keep it"
        )
        remedy = "write alpha: 0.01 in its place"
        if against.fitted:
            remedy += f", or about {budget.label}, which has levels for both without the promise"
        mistakes.append(Mistake(("false_alarms",), ABSENT, rule, remedy))
    return mistakes


def _window_mistakes(
    against: Against, windows: Sequence[WindowSpec], lateness_ms: int, retention_ms: int
) -> list[Mistake]:
    mistakes: list[Mistake] = []
    for i, window in enumerate(windows):
        at = ("windows", i)
        parts = [part for found in against.of(window) for part in found]
        if not parts and not against.fitted:
            if not isinstance(window, TimeWindow):
                rule = (
                    "with `against`, windows have a length in time: an earlier part has to be found"
                )
                mistakes.append(Mistake(at, window.label, rule, "write a duration, such as 1h"))
            else:
                longest = format_duration(max(part.period_ms for part in against.parts))
                rule = (
                    f"a window longer than the period, {longest}, would be compared with a part of "
                    "itself"
                )
                mistakes.append(Mistake(at, window.label, rule, "write a shorter window"))
        needed_ms = max((part.lag_ms + part.size_ms for part in parts), default=0) + lateness_ms
        if parts and needed_ms > retention_ms:
            rule = (
                f"panes are kept for {format_duration(retention_ms)} (retention), and this window "
                f"with what it is compared with needs them for {format_duration(needed_ms)}"
            )
            days = -(-needed_ms // 86_400_000)
            mistakes.append(Mistake(at, window.label, rule, f"write retention: {days}d"))
    if mistakes:
        return mistakes
    for part in against.parts:
        if not any(map(part.of, windows)):
            rule = (
                "no window can be compared with it: they have a length in time, at most the period"
            )
            remedy = "add a shorter window in time, such as 1h, or take it out"
            mistakes.append(Mistake(("against",), part.name, rule, remedy))
    for one, other in combinations(against.parts, 2):
        same = next((w for w in windows if one.of(w) and one.of(w) == other.of(w)), None)
        if same is not None:
            rule = f"for windows of {same.label} it is the same part of the stream as `{one.name}`"
            mistakes.append(Mistake(("against",), other.name, rule, "remove one of them"))
    return mistakes
