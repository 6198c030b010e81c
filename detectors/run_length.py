"""The looks of a monitor at null draws: which p-values it would have seen, and when.

The p-values are those of the live detectors. What makes it fast is that nearly all looks need no
p-value at all: `ks`, `chi_squared`, `missing_rate` and `variance_shift` are looked at through bounds
(`numeric_looks`, `categorical_looks`, `spread_looks`), and that `mean_shift`, `cusum` and
`shiryaev_roberts` need sums of panes only (`moment_looks`, `onset_looks`). Any other detector is run as
the monitor runs it, pane by pane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Detector
from .categorical_looks import CategoricalLooks
from .chi_squared import ChiSquared
from .cusum import Cusum
from .fitting import fit
from .ks import KolmogorovSmirnov
from .looking import look_at
from .looks import FOREVER_MS, Found, Looks, Probe, Replicate, Seen, Setting, log
from .mean_shift import MeanShift
from .missing_rate import MissingRate
from .moment_looks import MomentLooks
from .multivariate import MULTIVARIATE
from .numeric_looks import COARSE_SLACK, SLACK, NumericLooks
from .onset_looks import OnsetLooks
from .panes import Columns, summarize
from .profile import Kind, Profile
from .resample import Draw, Rows
from .shiryaev_roberts import ShiryaevRoberts
from .spread_looks import SpreadLooks
from .variance_shift import VarianceShift
from .windows import WindowBank, WindowSpec

# Those that have a quick way.
_QUICK = (
    KolmogorovSmirnov,
    ChiSquared,
    MissingRate,
    MeanShift,
    Cusum,
    ShiryaevRoberts,
    VarianceShift,
)


class Simulator:
    """Looks at null draws from the reference rows.

    Args:
        profile, rows: the reference. plan: (detector, features it tests), as the monitor has it.
        windows: the windows. pane_events: events in a pane. pane_ms: length of a pane.
        min_events: fewer values than this are not tested.
        grain: one simulated event, and one row of a simulated reference, stands for so many.
        rare: only very small p-values will be asked for. live: make every look as the monitor
            does; slow, and the same. certain: put back what blocks lose of each window's variance, and
            leave out that it is an estimate.
    """

    def __init__(
        self,
        profile: Profile,
        rows: Rows,
        plan: Sequence[tuple[Detector, Sequence[int]]],
        windows: Sequence[WindowSpec],
        *,
        pane_events: int,
        pane_ms: int,
        min_events: int,
        seed: int,
        grain: int = 1,
        rare: bool = False,
        live: bool = False,
        certain: bool = False,
    ) -> None:
        self.profile, self.rows, self.plan = profile, rows, plan
        self.looks = tuple(Looks.of(spec, pane_events, pane_ms, grain) for spec in windows)
        self.pane_events, self.pane_ms = pane_events // grain, pane_ms
        self.min_events = max(1, min_events // grain)
        self.n_reference = rows.n // grain
        self.seed, self.grain = seed, grain
        self.tests = [
            Probe(detector, feature, w)
            for detector, features in plan
            for feature in features
            for w in range(len(windows))
        ]
        self.kept = None
        if certain:
            of_window = [
                self._of_feature(rows.memory.kept_of(w.panes * pane_events), np.min)
                for w in self.looks
            ]
            self.kept = np.array([of_window[t.window][t.feature] for t in self.tests])
        self.index = {(t.detector.name, t.feature, t.window): i for i, t in enumerate(self.tests)}
        fast = () if live else _QUICK
        # A feature that is one and the same in all rows has nothing to simulate: each p-value is 1.
        silent = rows.silent
        plan = [(d, own) for d, f in plan if (own := [i for i in f if i not in silent])]
        self.slow = [(d, f) for d, f in plan if type(d) not in fast]
        of = {type(d): list(f) for d, f in plan if type(d) in fast}
        # Nor has one of which no row is without a value.
        rate = of.get(MissingRate, [])
        n_numeric = profile.n_numeric
        self.rate = [i for i in rate if i < n_numeric and np.isnan(rows.numeric[i].rank).any()]
        missing = [i for i in rate if i >= n_numeric and profile.categorical[i - n_numeric].missing]
        self.slow += [(d, missing) for d, _ in plan if type(d) is MissingRate and missing]
        self.setting = Setting(
            profile,
            rows,
            self.n_reference,
            self.looks,
            self.index,
            self.pane_events,
            pane_ms,
            self.min_events,
            grain,
        )
        slack = COARSE_SLACK if rare else SLACK
        ks = of.get(KolmogorovSmirnov, [])
        self.numeric = NumericLooks(self.setting, ks, self.rate, slack)
        onsets = of.get(ShiryaevRoberts, [])
        categories = range(n_numeric, len(profile.counted))
        self.categorical = CategoricalLooks(
            self.setting, of.get(ChiSquared, []), [i for i in onsets if i in categories]
        )
        self.moments = MomentLooks(self.setting, of.get(MeanShift, []), of.get(Cusum, []))
        self.onset = OnsetLooks(self.setting, [i for i in onsets if i not in categories])
        self.spread = SpreadLooks(self.setting, of.get(VarianceShift, []))

    def run(
        self, replicate: int, n_panes: int, screen: npt.NDArray[np.float64], *, bounds: bool = False
    ) -> Seen:
        """One replicate's looks whose log p is at most `screen` (one value per test).

        bounds: give the bounds instead, of every look: quick, a little too large.
        """
        draw = Draw.of(
            self.rows, self.n_reference, n_panes * self.pane_events, (self.seed, replicate)
        )
        found = Found()
        if self.kept is not None:
            stretch = 1.0 / self.kept
        else:
            rng = np.random.default_rng([self.seed, replicate, 2])
            stretch = self._of_feature(self.rows.memory.stretch(rng), np.max)
            stretch = stretch[[t.feature for t in self.tests]]
        own = Replicate(draw, n_panes, screen / stretch, bounds, found)
        if self.numeric.ks or self.numeric.rate:
            self.numeric.run(own)
        if self.categorical.features:
            self.categorical.run(own)
        if self.moments.features:
            self.moments.run(own)
        if self.onset.features:
            self.onset.run(own)
        if self.spread.features:
            self.spread.run(own)
        if self.slow:
            self._live(own)
        seen = found.seen()
        return Seen(seen.pane, seen.test, seen.log_p * stretch[seen.test])

    def _of_feature(
        self, known: npt.NDArray[np.float64], worst: Callable[[Any], Any]
    ) -> npt.NDArray[np.float64]:
        """By feature, what is known of the counted ones; of all numeric ones together, the worst."""
        found = np.ones(len(self.profile.features) + 1)
        found[: len(known)] = known
        if numeric := self.profile.n_numeric:
            found[-1] = worst(known[:numeric])
        return found

    def _live(self, replicate: Replicate) -> None:
        """Every look of the detectors that have no bound, as the monitor makes it."""
        n_panes = replicate.n_panes
        reference, stream = replicate.draw.columns()
        kinds: dict[str, Kind] = {f.name: f.kind for f in self.profile.features}
        profile, _ = fit(
            reference,
            kinds,
            max_categories=self.n_reference,
            required=False,
            multivariate=any(len(self.profile.features) in f for _, f in self.slow),
        )
        # A number that is constant in this draw is a category there.
        names = {f.name: i for i, f in enumerate(profile.features) if f.kind == kinds[f.name]}
        if profile.multivariate is not None:
            names[MULTIVARIATE] = len(profile.features)
        plan = [
            (d, own)
            for d, f in self.slow
            if (own := {names[n]: i for i in f if (n := self.profile.name_of(i)) in names})
        ]
        of_detectors = [(d, list(own)) for d, own in plan]
        bank = WindowBank(profile, [w.spec for w in self.looks], self.pane_ms, FOREVER_MS)
        number = {id(window): w for w, window in enumerate(bank.windows)}
        starts = np.repeat(np.arange(n_panes) * self.pane_ms, self.pane_events)
        panes = summarize(profile, Columns.of(profile, stream), starts)
        for k, pane in enumerate(panes, 1):
            due = bank.push(k * self.pane_ms, pane)
            for look in look_at(profile, of_detectors, due, self.min_events):
                w = number[id(look.window)]
                for (detector, own), row in zip(plan, look.outcomes, strict=True):
                    for o in row:
                        p_value = o.deciding_p
                        if p_value is None:
                            continue
                        test = self.index[detector.name, own[o.feature], w]
                        log_p = float(log(p_value))
                        if replicate.bounds or log_p <= replicate.screen[test]:
                            replicate.found.add([k], test, [log_p])
