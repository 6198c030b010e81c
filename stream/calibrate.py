"""A model's budget of false alarms → a calibration of each of its units.

The whole model and every segment are tested on their own, so each gets an equal part of the budget:
with U units, each may alarm once in U times the distance asked for. A segment sees only its share
of the events, which is taken into account where the budget counts events.

Where windows are compared with earlier parts of the stream, too (`about` only), those tests get half
of each unit's part, shared out equally among all their looks (`monitor.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..detectors.base import plan_of
from ..detectors.calibration import calibrate
from ..detectors.levels import Calibration
from ..schemas.errors import ProfileError
from ..schemas.units import format_duration
from ..schemas.verdict import unit_key
from .config.document import ModelConfig
from .fit import Rows
from .profiles import Budget, Reference

HOUR_MS = 3_600_000


def keep_budget(
    reference: Reference,
    rows: Rows,
    *,
    events_per_hour: float | None = None,
    progress: Callable[[str, float], None] = lambda unit, share: None,
) -> Reference:
    """The reference with the levels that keep the configured budget, from the rows it was fitted on.

    Args:
        rows: in the order they came; of a model with `false_alarms`.
        events_per_hour: the model's rate, where the times of the rows do not tell it: rows that are
            a sample of the stream come too rarely.
        progress: called with a unit's key and its share done.

    Raises:
        ProfileError: the rate is not known, or the reference cannot support the budget (of one that
            is `about`, the calibrations have caveats in its place).
    """
    config = rows.model
    budget = config.false_alarms
    assert budget is not None
    per_ms, order = _paced(rows, events_per_hour)
    by_segment = rows.by_segment(order.tolist())
    whole = unit_key(config.name, {})
    found: dict[str, Calibration] = {}
    for key, (segment, profile) in sorted(reference.units.items()):
        if not profile.counted:
            continue
        # Every feature has an equal part; those of vectors went into their online tests.
        part = len(profile.features) / len(profile.counted)
        at = order.tolist()
        if key != whole:
            at = by_segment[tuple(segment[name] for name in config.segment_by)]
        share = len(at) / rows.n
        own = {f.name: [rows.columns[f.name][i] for i in at] for f in profile.counted}
        try:
            found[key] = calibrate(
                profile,
                own,
                plan_of(profile, config.detectors_for),
                config.windows,
                pane_events=max(1, round(per_ms * share * config.pane_ms)),
                ert_events=_distance(config, per_ms) * len(reference.units) * share * part,
                pane_ms=config.pane_ms,
                min_events=config.min_events,
                about=budget.about,
                progress=lambda done, key=key: progress(key, done),
            )
        except ProfileError as error:
            raise ProfileError(
                f"{key}: `false_alarms: {budget.label}` cannot be kept: {error}"
            ) from error
    earlier_panes = None
    if config.against is not None:
        earlier_panes = _distance(config, per_ms) * len(reference.units) / per_ms / config.pane_ms
        found = {key: _with_caveat(calibration) for key, calibration in found.items()}
    known_budget = Budget(budget.label, config.pane_ms, per_ms * HOUR_MS, found, earlier_panes)
    return replace(reference, budget=known_budget)


def _with_caveat(found: Calibration) -> Calibration:
    said = (
        "half of the budget goes to the tests against earlier parts of the stream, whose levels are "
        "not simulated: they hold for events that do not follow each other, and where windows expect "
        "each category some 30 times"
    )
    if found.block > 1 or found.period:
        said += (
            f". These rows follow each other over some {found.correlation_time:,.0f} rows"
            + (f", in cycles of {found.period:,.0f}" if found.period else "")
            + ", so false alarms come more often"
        )
    return replace(found, caveats=(*found.caveats, said))


def budget_events(rows: Rows, events_per_hour: float | None) -> float:
    """Events from one false alarm against the fitted reference to the next, of a model with
    `false_alarms`.

    Raises:
        ProfileError: the rate is not known.
    """
    return _distance(rows.model, _paced(rows, events_per_hour)[0])


def _paced(rows: Rows, events_per_hour: float | None) -> tuple[float, npt.NDArray[np.intp]]:
    """Events per millisecond of the whole model, and the rows in order of time where they tell it:
    whether values follow each other can only be seen there."""
    times_ms = np.array([t for t in rows.times_ms if t is not None], np.int64)
    order = np.arange(rows.n)
    if len(times_ms) == rows.n:
        order = np.argsort(times_ms, kind="stable")
    if events_per_hour is not None:
        return events_per_hour / HOUR_MS, order
    return _rate(rows.model, times_ms[order] if len(times_ms) == rows.n else times_ms[:0]), order


def _rate(config: ModelConfig, times_ms: npt.NDArray[np.int64]) -> float:
    """Events per millisecond of the whole model, from the sorted times of all rows, or none.

    Between the first and the last hundredth: one wild time must not make the rate.
    """
    n = len(times_ms)
    aside = n // 100
    span = int(times_ms[n - 1 - aside] - times_ms[aside]) if n else 0
    if span < config.pane_ms:
        have = (
            f"nearly all lie within {format_duration(span)}"
            if n
            else ("do not all say when they happened")
        )
        raise ProfileError(
            f"model {config.name!r}: `false_alarms` needs to know how many events a pane holds, and "
            f"the reference rows {have}; say it with --events-per-hour, or fit on rows with event "
            "times"
        )
    return (n - 1 - 2 * aside) / span


def _distance(config: ModelConfig, per_ms: float) -> float:
    """Events of the model between two false alarms against the fitted reference: twice as many where
    windows are compared with earlier parts of the stream, too, which have the other half."""
    budget = config.false_alarms
    assert budget is not None
    half = 2 if config.against is not None else 1
    if budget.events is not None:
        return half * budget.events
    assert budget.ms is not None
    return half * budget.ms * per_ms
