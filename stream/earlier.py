"""Windows compared with an earlier part of the stream, as `against` asks: their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..detectors.base import Detector, Outcome
from ..detectors.earlier import profile_of
from ..detectors.missing_rate import MissingRate
from ..detectors.onset import Onset
from ..detectors.profile import Profile
from ..detectors.windows import Window
from ..schemas.units import MAX_TIME_MS, MIN_TIME_MS, iso_ms
from ..schemas.verdict import digest


class NoOnset:
    """What a reference that moves along cannot say: since when."""

    def onset(self, feature: int, *, absent: bool, window_start_ms: int) -> Onset | None:
        return None


@dataclass(frozen=True, slots=True)
class Compared:
    """A window's tests. profile: of what it was compared with. outcomes: (detector, feature) → of
    those that were made; reasons: feature, or None for all, → why none was."""

    profile: Profile
    outcomes: Mapping[tuple[str, int], Outcome]
    reasons: Mapping[int | None, str]
    detail: Mapping[str, Any]

    def outcome(self, detector: str, feature: int) -> Outcome:
        found = self.outcomes.get((detector, feature))
        if found is None:
            reason = self.reasons.get(feature) or self.reasons[None]
            found = Outcome(feature, None, None, reason=reason)
        return replace(found, detail={**found.detail, **self.detail})


def compare(
    base: Profile,
    window: Window,
    plan: Sequence[tuple[Detector, Sequence[int]]],
    min_events: int,
    unfit: str | None,
) -> Compared:
    """Test a window against the earlier ones that go with it (`window.before`).

    Args:
        base: the profile that panes are made against. unfit: why the window itself cannot be
            tested, None where it can.
    """
    spans = [(w.start_ms, w.end_ms) for w in window.before]
    profile = profile_of(base, window.before, digest("earlier", base.id, spans))
    detail = {
        "compared_with": {
            "start": _shown(min(start for start, _ in spans)),
            "end": _shown(max(end for _, end in spans)),
            "parts": len(spans),
        }
    }
    if unfit is None and profile.n_rows < min_events:
        unfit = (
            f"the earlier part of the stream has {profile.n_rows} events; min_events is "
            f"{min_events}"
        )
    if unfit is not None:
        return Compared(profile, {}, {None: unfit}, detail)
    reasons: dict[int | None, str] = {}
    for i, f in enumerate(profile.counted):
        if f.n < min_events:
            reasons[i] = (
                f"the earlier part of the stream has {f.n} values of the feature; min_events is "
                f"{min_events}"
            )
    outcomes: dict[tuple[str, int], Outcome] = {}
    for detector, features in plan:
        # Whether values are missing can be told from no values.
        usable = [i for i in features if i not in reasons or detector.name == MissingRate.name]
        if usable:
            [row] = detector.test(profile, [window], usable)
            outcomes |= {(detector.name, outcome.feature): outcome for outcome in row}
    return Compared(profile, outcomes, reasons, detail)


def _shown(ms: int) -> str:
    return iso_ms(min(max(ms, MIN_TIME_MS), MAX_TIME_MS))
