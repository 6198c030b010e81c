"""The work of a tuning: panes once, looks once, then every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...detectors.base import plan_of
from ...detectors.levels import Calibration
from ...detectors.looking import tests_of
from ...detectors.panes import Pane
from ...schemas.errors import ProfileError
from ...schemas.units import iso_ms
from ..calibrate import keep_budget
from ..profiles import Budget
from ..sources import Batch
from .candidates import Candidate, Grid
from .evidence import AllLooks, Evidence, Span, quiet_parts, window_spans, zones_of
from .looks import look
from .results import Score, ranked
from .score import Levels, Scorer
from .store import Kept, find, keep, key_of
from .task import Progress, Task, lookers_of, plan_for, units_of
from .trials import trials as put_in


@dataclass(frozen=True)
class Tuned:
    """scores: best first. always, never: what an alarm at every look, or none, would have come to.
    read: whether events were read, or panes of an earlier run served. notes: what was left out, in
    sentences. calibrated: for each candidate that was, what its levels came to."""

    task: Task
    kept: Kept
    read: bool
    evidence: Evidence
    scores: Sequence[Score]
    always: Score
    never: Score
    notes: Sequence[str]
    calibrated: Mapping[Candidate, Budget] = field(default_factory=dict)

    @property
    def chosen(self) -> Score:
        return self.scores[0]

    @property
    def current(self) -> Score:
        return next(s for s in self.scores if s.candidate.current)


def tune(task: Task, progress: Progress = lambda stage, share: None) -> Tuned:
    """Try every candidate of a task.

    Raises:
        DriftlineError: the source cannot be read, panes cannot be kept, or nothing can be scored.
    """
    kept, read = _panes(task, progress)
    notes: list[str] = []
    if task.grid.left_out:
        notes.append(f"{task.grid.left_out:,} combinations left out: {task.grid.reason}")
    evidence = _evidence(task, kept, notes, progress)
    scorer = Scorer(evidence, task.bearable)
    scores = []
    known = _levels_of(task.reference.budget, evidence)
    for i, candidate in enumerate(task.grid.candidates):
        levels = known if _calibrated_for(candidate, task.reference.budget, scorer) else None
        scores.append(scorer.score(candidate, levels))
        progress("score", (i + 1) / len(task.grid.candidates))
    best = ranked(scores, evidence.span)
    calibrated = _calibrate(task, scorer, best, notes, progress)
    if calibrated:
        again = [
            scorer.score(s.candidate, _levels_of(calibrated[s.candidate], evidence))
            if s.candidate in calibrated
            else s
            for s in best
        ]
        best = ranked(again, evidence.span)
    always, never = _extremes(scorer, task.grid)
    return Tuned(task, kept, read, evidence, best, always, never, notes, calibrated)


def _panes(task: Task, progress: Progress) -> tuple[Kept, bool]:
    pane_ms = task.grid.base_pane_ms
    key = key_of(task.source, task.model, task.reference)
    if not task.fresh and (kept := find(task.directory, key, pane_ms)) is not None:
        progress("read", 1.0)
        return kept, False

    def watch(batch: Batch) -> None:
        progress("read", batch.done / max(1, batch.total))

    made = keep(
        task.directory, task.source, task.config, task.model, task.reference, pane_ms, watch
    )
    return made, True


def _evidence(task: Task, kept: Kept, notes: list[str], progress: Progress) -> Evidence:
    units = units_of(task.reference)
    largest_ms = kept.largest_ms or 0
    looks: AllLooks = {}
    plans: dict[str, dict[str, Sequence[int]]] = {}
    slices: list[tuple[int, int]] = []
    first = min(c.first_ms for c in kept.chunks)
    last = max(c.last_ms for c in kept.chunks) + kept.pane_ms
    for n, (key, profile) in enumerate(units.items()):
        plan = plan_for(profile, task.grid.candidates)
        plans[key] = {d.name: f for d, f in plan}
        lookers = lookers_of(task, profile, plan)

        def counted(panes: Iterator[Pane], n: int = n) -> Iterator[Pane]:
            for pane in panes:
                if n == 0:
                    slices.append((pane.start_ms, pane.events))
                share = (pane.start_ms - first) / max(1, last - first)
                progress("look", (n + share) / len(units))
                yield pane

        look(counted(kept.panes(key, profile)), lookers.values())
        for pane_ms, looker in lookers.items():
            looker.finish(largest_ms, task.model.allowed_lateness_ms)
            looks |= {(key, pane_ms, label): own for label, own in looker.looks().items()}
    progress("look", 1.0)
    outside = [i for i in task.incidents if i.end_ms <= first or i.start_ms >= last]
    if outside:
        notes.append(
            f"incidents outside {iso_ms(first)} to {iso_ms(last)}, the time of the events, are left "
            f"out: {', '.join(i.name for i in outside)}"
        )
    incidents = [i for i in task.incidents if i not in outside]
    zones = zones_of(incidents, looks)
    quiet = quiet_parts(first, last, zones)
    events = sum(n for at, n in slices if any(a <= at < b for a, b in quiet))
    span = Span(first, last, quiet, events, zones)
    if not quiet:
        notes.append(
            "no part of the time is free of incidents and their events, so false alarms cannot be "
            "counted and no drift was put in"
        )
    spans = window_spans(looks, task.grid.candidates)
    back_ms = max(int((own.end_ms - own.start_ms).max(initial=0)) for own in looks.values())
    trials = list(put_in(task, kept, span, slices, back_ms, max(spans.values()), notes, progress))
    return Evidence(
        units,
        plans,
        looks,
        span,
        incidents,
        trials,
        spans,
        task.config.alerts.resolve_after,
    )


def _calibrated_for(candidate: Candidate, budget: Budget | None, scorer: Scorer) -> bool:
    """Whether a calibration is for this candidate, so that its levels are those of a live run."""
    asked = candidate.level.budget
    if budget is None or asked is None or budget.false_alarms != asked.label:
        return False
    if budget.pane_ms != candidate.pane_ms:
        return False
    for unit, profile in scorer.evidence.units.items():
        own = tests_of(profile, plan_of(profile, candidate.detectors_for), candidate.windows)
        found = budget.units.get(unit)
        if found is None or set(found.levels) != own:
            return False
    return True


def _levels_of(budget: Budget | None, evidence: Evidence) -> Levels:
    units: Mapping[str, Calibration] = {} if budget is None else budget.units

    def levels(unit: str, features: Sequence[int], detector: str, window: str) -> np.ndarray:
        profile, found = evidence.units[unit], units[unit]
        return np.array([found.level(profile.name_of(i), detector, window) for i in features])

    return levels


def levels_of_score(score: Score, tuned: Tuned) -> Levels:
    """The levels that a score was made with."""
    if (constant := score.level) is not None:
        return lambda unit, features, detector, window: constant
    budget = tuned.calibrated.get(score.candidate, tuned.task.reference.budget)
    return _levels_of(budget, tuned.evidence)


def _calibrate(
    task: Task, scorer: Scorer, best: Sequence[Score], notes: list[str], progress: Progress
) -> dict[Candidate, Budget]:
    """Simulated levels for the best candidates that have a budget; a simulation takes up to minutes,
    so only so many."""
    wanted = [s.candidate for s in best if s.how == "empirical"][: max(0, task.calibrate)]
    rows = task.reference_rows
    if rows is None or not wanted:
        if wanted:
            notes.append(
                "levels of budgets are read off this run's own quiet part (≈); `driftline fit` finds "
                "those a live run keeps, and --reference-rows does so here for the best candidates"
            )
        return {}
    found: dict[Candidate, Budget] = {}
    for i, candidate in enumerate(wanted):
        try:
            made = keep_budget(
                task.reference,
                replace(rows, model=candidate.config(task.model)),
                events_per_hour=task.events_per_hour,
                progress=lambda unit, done, i=i: progress("calibrate", (i + done) / len(wanted)),
            )
        except ProfileError as error:
            notes.append(f"not calibrated: {candidate.label}: {error}")
            continue
        assert made.budget is not None
        found[candidate] = made.budget
    progress("calibrate", 1.0)
    return found


def _extremes(scorer: Scorer, grid: Grid) -> tuple[Score, Score]:
    """An alarm at every finest pane, and none at all: what any result lies between."""
    current = next(c for c in grid.candidates if c.current)
    never = scorer.score(current, lambda *_: -1.0)
    return scorer.always(current, grid.base_pane_ms), never
