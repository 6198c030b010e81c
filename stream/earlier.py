"""Windows compared with an earlier part of the stream, as `against` asks: their tests."""

from __future__ import annotations

from collections.abc import Sequence

from ..detectors.base import Outcome
from ..detectors.earlier import profile_of
from ..detectors.looking import Plan, WindowLook, unfit, usable
from ..detectors.missing_rate import MissingRate
from ..detectors.profile import Profile
from ..detectors.windows import Window
from ..schemas.verdict import digest
from .verdicts import shown


def compare(
    base: Profile, plan: Plan, window: Window, before: Sequence[Window], min_events: int
) -> tuple[Profile, WindowLook]:
    """Test a window against earlier ones, taken together.

    Args:
        base: the profile that panes are made against.
        before: one of `window.before`.

    Returns:
        the profile of those earlier windows, and the look.
    """
    spans = [(w.start_ms, w.end_ms) for w in before]
    profile = profile_of(base, before, digest("earlier", base.id, spans))
    detail = {
        "compared_with": {
            "start": shown(min(start for start, _ in spans)),
            "end": shown(max(end for _, end in spans)),
            "parts": len(spans),
        }
    }
    reason = unfit(window, min_events)
    if reason is None and profile.n_rows < min_events:
        reason = (
            f"the earlier part of the stream has {profile.n_rows} events; min_events is "
            f"{min_events}"
        )
    look = WindowLook(window, reason, [])
    for detector, features in plan:
        reasons: dict[int, str] = {}
        for i in features:
            few = profile.features[i].n
            if reason is not None:
                reasons[i] = reason
            # Whether values are missing can be told from no values.
            elif few < min_events and detector.name != MissingRate.name:
                reasons[i] = (
                    f"the earlier part of the stream has {few} values of the feature; min_events "
                    f"is {min_events}"
                )
        fit = [i for i in features if i not in reasons]
        made = {o.feature: o for o in detector.test(profile, [window], fit)[0]} if fit else {}
        outcomes = (made.get(i) or Outcome(i, None, None, reason=reasons[i]) for i in features)
        look.outcomes.append(
            [usable(o._replace(detail={**o.detail, **detail}), min_events) for o in outcomes]
        )
    return profile, look
