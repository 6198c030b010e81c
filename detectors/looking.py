"""A look at windows: every test that a plan has for them, and why not where one cannot be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .base import Detector, Outcome, before_full
from .levels import Key
from .profile import Profile
from .windows import Window, WindowSpec

Plan = Sequence[tuple[Detector, Sequence[int]]]
"""Detectors, each with the indices of the features it tests."""


def tests_of(profile: Profile, plan: Plan, windows: Sequence[WindowSpec]) -> set[Key]:
    """(feature, detector, window) of every test that looks at all windows come to."""
    return {
        (profile.name_of(i), detector.name, window.label)
        for detector, features in plan
        for i in features
        for window in windows
    }


class WindowLook(NamedTuple):
    """What a look at one window came to.

    reason: why the window is not fit for tests, None where it is. outcomes: per entry of the plan one
    per feature, in the plan's order; without statistics where there is a reason, but for detectors
    that test before a window is full.
    """

    window: Window
    reason: str | None
    outcomes: list[list[Outcome]]


def look_at(
    profile: Profile, plan: Plan, windows: Sequence[Window], min_events: int
) -> list[WindowLook]:
    """Test windows.

    Args:
        min_events: a window with fewer events is not tested, and an outcome that rests on fewer
            values counts for nothing.
    """
    looks = [WindowLook(w, unfit(w, min_events), []) for w in windows]
    for detector, features in plan:
        early = before_full(detector)
        reasons = [too_small(look.window, min_events) if early else look.reason for look in looks]
        fit = [look for look, reason in zip(looks, reasons, strict=True) if reason is None]
        rows = iter(detector.test(profile, [look.window for look in fit], features) if fit else [])
        for look, reason in zip(looks, reasons, strict=True):
            if reason is None:
                look.outcomes.append([usable(outcome, min_events) for outcome in next(rows)])
            else:
                look.outcomes.append([Outcome(i, None, None, reason=reason) for i in features])
    return looks


def usable(outcome: Outcome, min_events: int) -> Outcome:
    """An outcome made from too few values is none: most of the window may be missing."""
    n = outcome.detail.get("n_test")
    if n is None or n >= min_events or outcome.reason is not None:
        return outcome
    reason = f"only {n} values of the feature could be tested; min_events is {min_events}"
    return Outcome(outcome.feature, None, None, outcome.effect, reason, None, outcome.detail)


def unfit(window: Window, min_events: int) -> str | None:
    """Why a window is not fit for tests, None where it is."""
    if window.missing_events and window.events:
        return f"the stream has brought {window.events} of the window's {window.label}"
    return too_small(window, min_events)


def too_small(window: Window, min_events: int) -> str | None:
    """Why a window is not even fit for those that test before it is full, None where it is."""
    if window.events == 0:
        return "the window is empty"
    if window.events < min_events:
        return f"the window has {window.events} events; min_events is {min_events}"
    return None
