"""What a calibration came to: the levels of a model's tests, kept with its reference.

Apart from `calibration`, which finds them: whoever only reads levels need not load a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..schemas.errors import ProfileError

# One without caveats is written as it was before there were any, so that its reference keeps its id.
FORMAT: Final = 3
_WITH_CAVEATS: Final = 4

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The levels of a model's tests, and what they rest on.

    levels: (feature, detector, window label) → level on the p-value: p ≤ level is an alarm.
    ert_events: the expected run time that the levels are for: the one asked for, but where a caveat
        says another. estimate, low, high: the one estimated for these
        levels, and its 95 % interval (bootstrap over replicates: the simulation's error only).
    early: share of replicates that alarmed within a tenth of the budget (of the longest run time
        simulated, where that is shorter). A memoryless alarm would come to 0.095, less while
        windows fill. More says that references differ much: an unlucky
        one alarms sooner than the average promises.
    rate: v, the marginal rate of one look that all tests have in common.
    events, replicates, horizon: simulated in all, of how many pairs of a reference and a stream,
        and the events that each stands for at most. grain: events for which a simulated one stands.
    rows, correlation_time, block, period: of the reference, in rows; 1, 1 and 0 where rows are
        independent and know no cycle.
    nominal: tests too rarely seen small to be fitted, and those of features that never vary in the
        reference; their p-value was taken as it is.
    tail: how run lengths beyond the horizon were estimated: `survivors` or `log-linear`; `bound`
        where nothing varies in the reference, so that nothing was simulated: then `estimate` is
        what the levels sum up to, and the run time at least that.
    caveats: why the levels are an attempt and no promise, a sentence each; none where they keep it.
    """

    levels: Mapping[Key, float]
    ert_events: float
    estimate: float
    low: float
    high: float
    early: float
    rate: float
    events: int
    replicates: int
    horizon: int
    pane_events: int
    grain: int
    rows: int
    correlation_time: float
    block: int
    period: float
    nominal: int
    tail: str
    seed: int
    profile: str
    caveats: tuple[str, ...] = ()

    def level(self, feature: str, detector: str, window: str) -> float:
        """Raises KeyError where the test was not calibrated."""
        return self.levels[feature, detector, window]

    def to_json(self) -> dict[str, Any]:
        """Strict JSON types only; `from_json` gives the same calibration back."""
        data = {name: getattr(self, name) for name in _OWN}
        levels = [[*key, level] for key, level in self.levels.items()]
        if not self.caveats:
            return {"format": FORMAT, **data, "levels": levels}
        caveats = list(self.caveats)
        return {"format": _WITH_CAVEATS, **data, "caveats": caveats, "levels": levels}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Calibration:
        """Raises ProfileError: another format, or damaged."""
        if data.get("format") not in (FORMAT, _WITH_CAVEATS):
            raise ProfileError(
                f"calibration format {data.get('format')!r}: this version reads formats {FORMAT} and "
                f"{_WITH_CAVEATS}; calibrate again with `driftline fit`"
            )
        try:
            own = {name: data[name] for name in _OWN}
            levels = {(str(f), str(d), str(w)): float(p) for f, d, w, p in data["levels"]}
            caveats: list[str] = data["caveats"] if data["format"] == _WITH_CAVEATS else []
            said = tuple(str(caveat) for caveat in caveats)
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(
                f"calibration is damaged ({type(error).__name__}: {error}); "
                "calibrate again with `driftline fit`"
            ) from error
        return Calibration(levels=levels, caveats=said, **own)


_OWN: Final = tuple(name for name in Calibration.__slots__ if name not in ("levels", "caveats"))
