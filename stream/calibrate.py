"""A model's budget of false alarms → a calibration of each of its units.

The whole model and every segment are tested on their own, so each gets an equal part of the budget:
with U units, each may alarm once in U times the distance asked for. A segment sees only its share
of the events, which is taken into account where the budget counts events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..detectors.base import plan_of
from ..detectors.calibration import calibrate
from ..detectors.levels import Calibration
from ..schemas.errors import ProfileError
from ..schemas.units import FalseAlarms, format_duration
from ..schemas.verdict import unit_key
from .config.document import ModelConfig
from .profiles import Budget, Reference

HOUR_MS = 3_600_000


def keep_budget(
    config: ModelConfig,
    reference: Reference,
    columns: Mapping[str, Sequence[Any]],
    segments: Sequence[tuple[str, ...]],
    times_ms: Sequence[int | None],
    *,
    events_per_hour: float | None = None,
    progress: Callable[[str, float], None] = lambda unit, share: None,
) -> Reference:
    """The reference with the levels that keep the configured budget, from the rows it was fitted on.

    Args:
        columns, segments, times_ms: the rows, in the order they came.
        events_per_hour: the model's rate, where the times of the rows do not tell it: rows that are
            a sample of the stream come too rarely.
        progress: called with a unit's key and its share done.

    Raises:
        ProfileError: the rate is not known, or the reference cannot support the budget.
    """
    budget = config.false_alarms
    assert budget is not None
    known = [i for i, t in enumerate(times_ms) if t is not None]
    per_ms = _rate(config, [times_ms[i] for i in known], len(times_ms), events_per_hour)
    # Whether values follow each other can only be seen in the order of time.
    order = np.arange(len(times_ms))
    if len(known) == len(times_ms):
        order = np.argsort(np.array(times_ms, np.int64), kind="stable")
    whole = unit_key(config.name, {})
    found: dict[str, Calibration] = {}
    for key, (segment, profile) in sorted(reference.units.items()):
        if not profile.counted:
            continue
        # Every feature has an equal part; those of vectors went into their online tests.
        part = len(profile.features) / len(profile.counted)
        rows = order.tolist()
        if key != whole:
            wanted = tuple(segment[name] for name in config.segment_by)
            rows = [i for i in rows if segments[i] == wanted]
        share = len(rows) / len(times_ms)
        own = {f.name: [columns[f.name][i] for i in rows] for f in profile.counted}
        try:
            found[key] = calibrate(
                profile,
                own,
                plan_of(profile, config.detectors_for),
                config.windows,
                pane_events=max(1, round(per_ms * share * config.pane_ms)),
                ert_events=_distance(budget, per_ms) * len(reference.units) * share * part,
                pane_ms=config.pane_ms,
                min_events=config.min_events,
                progress=lambda done, key=key: progress(key, done),
            )
        except ProfileError as error:
            raise ProfileError(
                f"{key}: `false_alarms: {budget.label}` cannot be kept: {error}"
            ) from error
    known_budget = Budget(budget.label, config.pane_ms, per_ms * HOUR_MS, found)
    return replace(reference, budget=known_budget)


def budget_events(
    config: ModelConfig, times_ms: Sequence[int | None], events_per_hour: float | None
) -> float:
    """Events of the model from one false alarm to the next.

    Raises:
        ProfileError: the rate is not known.
    """
    assert config.false_alarms is not None
    known = [t for t in times_ms if t is not None]
    return _distance(config.false_alarms, _rate(config, known, len(times_ms), events_per_hour))


def _rate(
    config: ModelConfig,
    times_ms: Sequence[int | None],
    n: int,
    events_per_hour: float | None,
) -> float:
    """Events per millisecond of the whole model."""
    if events_per_hour is not None:
        return events_per_hour / HOUR_MS
    known = [t for t in times_ms if t is not None]
    span = max(known) - min(known) if known else 0
    if len(known) < n or span < config.pane_ms:
        have = "do not say when they happened"
        if known and len(known) == n:
            have = f"all lie within {format_duration(span)}"
        raise ProfileError(
            f"model {config.name!r}: `false_alarms` needs to know how many events a pane holds, and "
            f"the reference rows {have}; say it with --events-per-hour, or fit on rows with event "
            "times"
        )
    return (n - 1) / span


def _distance(budget: FalseAlarms, per_ms: float) -> float:
    """Events of the model between two false alarms."""
    if budget.events is not None:
        return budget.events
    assert budget.ms is not None
    return budget.ms * per_ms
