"""What a candidate would have done: its alarms on the quiet part, and how soon it sees a change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...schemas.units import FalseAlarms
from .candidates import Candidate
from .evidence import Evidence, Ints, inside
from .results import Found, Injected, Score

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


# The level of one test: unit key, names of the features, detector, window label → (F,) or a number.
Levels = Callable[[str, Sequence[int], str, str], "Floats | float"]


@dataclass(slots=True)
class Scorer:
    """Scores candidates on the same evidence; what many of them share is computed once."""

    evidence: Evidence
    bearable: FalseAlarms
    _columns: dict[object, list[tuple[str, npt.NDArray[np.intp], list[int]]]] = field(
        default_factory=dict
    )
    _lowest: dict[object, list[tuple[Ints, Floats]]] = field(default_factory=dict)
    _last: dict[object, npt.NDArray[np.intp]] = field(default_factory=dict)

    def tests(self, candidate: Candidate) -> int:
        """Tests of one look at the whole model, all units, as the monitor counts them."""
        per_window = sum(
            len(features)
            for unit in self.evidence.units
            for _, _, features in self._of(candidate, unit)
        )
        return per_window * len(candidate.windows)

    def score(self, candidate: Candidate, levels: Levels | None = None) -> Score:
        """levels: of each test, where they were calibrated; else they follow from the candidate's
        alpha (Bonferroni) or, for a budget, from the p-values on the quiet part."""
        n_tests, level = self.tests(candidate), None
        how = "calibrated"
        if levels is None:
            alpha, budget = candidate.level.alpha, candidate.level.budget
            how = "bonferroni" if budget is None else "empirical"
            if budget is not None:
                level = self._empirical(candidate, budget)
            else:
                assert alpha is not None
                level = alpha / max(1, n_tests)
            constant = level
            levels = lambda unit, features, detector, window: constant
            fired = [(end, p <= level) for end, p in self._minima(candidate)]
        else:
            fired = self._fired(candidate, levels)
        episodes = self._episodes(fired, candidate)
        false_alarms = self._count(episodes, candidate)
        incidents = self._incidents(candidate, levels)
        injected = self._injected(candidate, levels)
        parts = [f.share for f in incidents] + [i.share for i in injected]
        return Score(
            candidate,
            level,
            how,
            episodes,
            false_alarms,
            self._in_alarm(episodes),
            incidents,
            injected,
            sum(parts) / len(parts) if parts else math.nan,
            false_alarms <= self.evidence.span.allowed(self.bearable),
            n_tests,
        )

    def always(self, candidate: Candidate, pane_ms: int) -> Score:
        """An alarm at the end of every pane, over at once."""
        span = self.evidence.span
        incidents = tuple(
            Found(
                (wait := pane_ms - i.start_ms % pane_ms),
                min(1.0, wait / (i.end_ms - i.start_ms)),
            )
            for i in self.evidence.incidents
        )
        cases: dict[str, int] = {}
        shares: dict[str, list[float]] = {}
        for trial in self.evidence.trials:
            name = trial.injection.name
            cases[name] = cases.get(name, 0) + len(trial.cases)
            shares.setdefault(name, []).append(pane_ms / trial.horizon_ms)
        injected = tuple(
            Injected(name, n, n, float(pane_ms), sum(shares[name]) / len(shares[name]))
            for name, n in cases.items()
        )
        parts = [f.share for f in incidents] + [i.share for i in injected]
        lag = sum(parts) / len(parts) if parts else math.nan
        alarms = sum((b - a) // pane_ms for a, b in span.quiet)
        ok = alarms <= span.allowed(self.bearable)
        return Score(candidate, 1.0, "always", (), alarms, 1.0, incidents, injected, lag, ok, 0)

    def _of(
        self, candidate: Candidate, unit: str
    ) -> list[tuple[str, npt.NDArray[np.intp], list[int]]]:
        """(detector, its columns in a look that the candidate uses, their features)."""
        key = (candidate.numeric, candidate.categorical, unit)
        if key not in self._columns:
            found = []
            profile = self.evidence.units[unit]
            for detector, tested in self.evidence.plans[unit].items():
                at = [
                    k
                    for k, i in enumerate(tested)
                    if detector in candidate.detectors_for(profile.kind_of(i))
                ]
                if at:
                    found.append((detector, np.array(at), [tested[k] for k in at]))
            self._columns[key] = found
        return self._columns[key]

    def _minima(self, candidate: Candidate) -> list[tuple[Ints, Floats]]:
        """Per unit and window: when it was looked at, and the smallest p-value of each look; looks
        at a window that could not be tested are left out."""
        found = []
        for unit in self.evidence.units:
            for window in candidate.windows:
                key = (unit, candidate.pane_ms, window.label)
                one = (*key, candidate.numeric, candidate.categorical)
                if one not in self._lowest and (looks := self.evidence.looks.get(key)) is not None:
                    lowest = np.full(len(looks.end_ms), np.inf)
                    for detector, at, _ in self._of(candidate, unit):
                        np.fmin(lowest, np.fmin.reduce(looks.p[detector][:, at], axis=1), lowest)
                    self._lowest[one] = [(looks.end_ms[looks.tested], lowest[looks.tested])]
                found += self._lowest.get(one, [])
        return found

    def _fired(self, candidate: Candidate, levels: Levels) -> list[tuple[Ints, Bools]]:
        """As `_minima`, but whether any test of a look drifted."""
        found = []
        for unit in self.evidence.units:
            for window in candidate.windows:
                looks = self.evidence.looks.get((unit, candidate.pane_ms, window.label))
                if looks is None:
                    continue
                drifted = np.zeros(len(looks.end_ms), np.bool_)
                for detector, at, features in self._of(candidate, unit):
                    level = levels(unit, features, detector, window.label)
                    drifted |= (looks.p[detector][:, at] <= level).any(axis=1)
                found.append((looks.end_ms[looks.tested], drifted[looks.tested]))
        return found

    def _episodes(
        self, fired: Sequence[tuple[Ints, Bools]], candidate: Candidate
    ) -> tuple[tuple[int, int], ...]:
        """Model-level alarms: from the first drifted look until every series that drifted has been
        quiet `resolve_after` times in a row, as the alert stage ends its alerts."""
        starts, ends = [], []
        for end_ms, drifted in fired:
            at = np.flatnonzero(drifted)
            if len(at):
                after = np.append(end_ms, end_ms[-1] + candidate.pane_ms)
                starts.append(end_ms[at])
                ends.append(after[np.minimum(at + self.evidence.resolve_after, len(end_ms))])
        if not starts:
            return ()
        start, end = np.concatenate(starts), np.concatenate(ends)
        order = np.argsort(start, kind="stable")
        start, until = start[order], np.maximum.accumulate(end[order])
        new = np.append(True, start[1:] > until[:-1])
        last = np.append(np.flatnonzero(new)[1:] - 1, len(start) - 1)
        return tuple(zip(start[new].tolist(), until[last].tolist(), strict=True))

    def _count(self, episodes: Sequence[tuple[int, int]], candidate: Candidate) -> int:
        """False alarms on the quiet part.

        An alarm that stands longer than the longest window is counted again for each such length:
        nothing that it first rested on is left, so it is another mistake. What began before a quiet
        part counts there from the second on.
        """
        length = max(self.evidence.spans_ms[candidate.pane_ms, w.label] for w in candidate.windows)
        total = 0
        for a, b in self.evidence.span.quiet:
            for start, end in episodes:
                stands = min(end, b) - max(start, a)
                if a < start <= b:
                    total += max(1, -(-stands // length))
                elif start <= a and stands > 0:
                    total += stands // length
        return total

    def _in_alarm(self, episodes: Sequence[tuple[int, int]]) -> float:
        span = self.evidence.span
        both = [min(end, b) - max(start, a) for a, b in span.quiet for start, end in episodes]
        return sum(ms for ms in both if ms > 0) / span.quiet_ms if span.quiet_ms else math.nan

    def _empirical(self, candidate: Candidate, budget: FalseAlarms) -> float:
        """The largest level, the same for all tests, within the budget on the quiet part.

        Where the quiet part is shorter than the budget, the smallest p-value there times the share
        of the budget that was seen: as if p-values so small were evenly distributed.
        """
        allowed = self.evidence.span.allowed(budget)
        minima = self._minima(candidate)
        quiet = np.concatenate(
            [p[inside(end, self.evidence.span.quiet)] for end, p in minima] or [np.empty(0)]
        )
        quiet = np.unique(quiet[np.isfinite(quiet)])
        if not len(quiet):
            return 0.0
        if allowed < 1:
            return float(quiet[0]) * allowed

        def count(level: float) -> int:
            fired = [(end, p <= level) for end, p in minima]
            return self._count(self._episodes(fired, candidate), candidate)

        low, high = -1, len(quiet) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if count(float(quiet[middle])) <= allowed:
                low = middle
            else:
                high = middle - 1
        # Just below the next p-value that was seen, which would be one alarm too many.
        if low < 0:
            return float(quiet[0]) * (1 - 1e-9)
        return float(quiet[low])

    def _firing(self, candidate: Candidate, levels: Levels, unit: str, at_ms: int) -> Bools:
        """(F + 1,) the features of a unit whose alert is firing at a time, and all together: one of
        their tests drifted in its last `resolve_after` looks."""
        evidence = self.evidence
        firing = np.zeros(len(evidence.units[unit].features) + 1, np.bool_)
        for window in candidate.windows:
            key = (unit, candidate.pane_ms, window.label)
            looks = evidence.looks.get(key)
            if looks is None:
                continue
            if (key, at_ms) not in self._last:
                before = np.flatnonzero(looks.tested & (looks.end_ms <= at_ms))
                self._last[key, at_ms] = before[-evidence.resolve_after :]
            last = self._last[key, at_ms]
            for detector, at, features in self._of(candidate, unit):
                level = levels(unit, features, detector, window.label)
                firing[features] |= (looks.p[detector][np.ix_(last, at)] <= level).any(axis=0)
        return firing

    def _incidents(self, candidate: Candidate, levels: Levels) -> tuple[Found, ...]:
        """An incident is seen when the alert of a feature begins that was not firing before it."""
        evidence = self.evidence
        found = []
        for incident in evidence.incidents:
            first: int | None = None
            for unit, profile in evidence.units.items():
                told = ~self._firing(candidate, levels, unit, incident.start_ms)
                if incident.features:
                    named = [f.name in incident.features for f in profile.features]
                    told &= np.array([*named, any(named[: profile.n_numeric])])
                for window in candidate.windows:
                    looks = evidence.looks.get((unit, candidate.pane_ms, window.label))
                    if looks is None:
                        continue
                    # The window holds some of the incident's time.
                    inside = (looks.start_ms < incident.end_ms) & (looks.end_ms > incident.start_ms)
                    for detector, at, features in self._of(candidate, unit):
                        level = levels(unit, features, detector, window.label)
                        hit = (looks.p[detector][inside][:, at] <= level) & told[features]
                        rows = np.flatnonzero(hit.any(axis=1))
                        if len(rows):
                            at_ms = int(looks.end_ms[inside][rows[0]])
                            first = at_ms if first is None else min(first, at_ms)
            if first is None:
                found.append(Found(None, 1.0))
            else:
                delay = first - incident.start_ms
                share = min(1.0, delay / (incident.end_ms - incident.start_ms))
                found.append(Found(delay, share))
        return tuple(found)

    def _injected(self, candidate: Candidate, levels: Levels) -> tuple[Injected, ...]:
        """A change is seen when the alert of its feature begins; one that was firing before cannot
        tell of it."""
        evidence = self.evidence
        unit = next(iter(evidence.units))
        n_features = len(evidence.units[unit].features) + 1
        delays: dict[str, list[float]] = {}
        shares: dict[str, list[float]] = {}
        firing: dict[int, Bools] = {}
        for trial in evidence.trials:
            first = np.full(n_features, np.inf)
            for window in candidate.windows:
                looks = trial.looks.get((candidate.pane_ms, window.label))
                if looks is None or not len(looks.end_ms):
                    continue
                after = (looks.end_ms - trial.onset_ms).astype(np.float64)
                for detector, at, features in self._of(candidate, unit):
                    p = looks.p.get(detector)
                    if p is None:
                        continue
                    hit = p[:, at] <= levels(unit, features, detector, window.label)
                    seen = np.where(hit.any(axis=0), after[hit.argmax(axis=0)], np.inf)
                    first[features] = np.minimum(first[features], seen)
            if trial.onset_ms not in firing:
                firing[trial.onset_ms] = self._firing(candidate, levels, unit, trial.onset_ms)
            first[firing[trial.onset_ms]] = np.inf
            for case in trial.cases:
                delay = float(first[list(case)].min())
                late = not delay <= trial.horizon_ms
                shares.setdefault(trial.injection.name, []).append(
                    1.0 if late else delay / trial.horizon_ms
                )
                own = delays.setdefault(trial.injection.name, [])
                if not late:
                    own.append(delay)
        return tuple(
            Injected(
                name,
                len(delays[name]),
                len(share),
                sum(delays[name]) / len(delays[name]) if delays[name] else None,
                sum(share) / len(share),
            )
            for name, share in shares.items()
        )
