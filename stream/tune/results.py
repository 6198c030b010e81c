"""What became of a candidate, and which candidates are better than others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

from .candidates import Candidate
from .evidence import Span

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Found:
    """Whether and when a change was seen. delay_ms: None for a miss. share: of the time there was,
    1 for a miss."""

    delay_ms: int | None
    share: float


@dataclass(frozen=True, slots=True)
class Injected:
    """One kind of injected drift over all features and onsets. found, cases: how many.
    delay_ms: mean over those found, None without any. share: mean share of the horizon."""

    name: str
    found: int
    cases: int
    delay_ms: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate's results.

    level: on p of one test; None where each test has its own. how: `bonferroni`, `calibrated` or
    `empirical`. episodes: [start, end) of the model-level alarms, in the whole range.
    false_alarms: on the quiet part. lag: mean over incidents and kinds of injected drift of the
    share of the time it took to see them, 1 for what was missed. bearable: the false alarms are
    within what was asked. tests: of one look at the whole model.
    """

    candidate: Candidate
    level: float | None
    how: str
    episodes: tuple[tuple[int, int], ...]
    false_alarms: int
    in_alarm: float
    incidents: tuple[Found, ...]
    injected: tuple[Injected, ...]
    lag: float
    bearable: bool
    tests: int
    pareto: bool = False
    rank: int = 0

    def per_day(self, span: Span) -> float:
        return self.false_alarms * DAY_MS / span.quiet_ms if span.quiet_ms else math.nan

    def run_time_ms(self, span: Span) -> tuple[float | None, float, float | None]:
        """Quiet time per false alarm and its 95 % interval (Garwood 1936); None for unbounded.

        With no false alarm all that is known is the lower end.
        """
        k, t = self.false_alarms, float(span.quiet_ms)
        most = float(special.gammaincinv(k + 1, 0.975))
        if k == 0:
            return None, t / most, None
        least = float(special.gammaincinv(k, 0.025))
        return t / k, t / most, t / least

    @property
    def missed_incidents(self) -> int:
        return sum(f.delay_ms is None for f in self.incidents)

    @property
    def found_injected(self) -> tuple[int, int]:
        return sum(i.found for i in self.injected), sum(i.cases for i in self.injected)


def ranked(scores: Sequence[Score], span: Span) -> list[Score]:
    """Best first: those within what is bearable by missed incidents and lag, then the others by
    their false alarms. Pareto-optimal ones, which none beats in both, are marked."""

    def order(s: Score) -> tuple[object, ...]:
        lag = 2.0 if math.isnan(s.lag) else s.lag
        if s.bearable:
            return (0, s.missed_incidents, lag, s.false_alarms, s.tests, s.candidate.label)
        return (1, s.false_alarms, s.missed_incidents, lag, s.tests, s.candidate.label)

    best = math.inf
    optimal: set[int] = set()
    by_alarms = sorted(scores, key=lambda s: (s.false_alarms, s.lag))
    for s in by_alarms:
        if s.lag < best:
            best = s.lag
            optimal.add(id(s))
    return [
        replace(s, rank=i, pareto=id(s) in optimal)
        for i, s in enumerate(sorted(scores, key=order), 1)
    ]
