"""The looks of a monitor at null draws: which p-values it would have seen, and when.

The p-values are those of the live detectors. What makes it fast is that nearly all looks need no
p-value at all: for `ks`, `chi_squared` and `missing_rate` a bound is computed for all looks of a
replicate at once, from counts per pane, and only a look that may be small enough is made exactly.
Any other detector is run as the monitor runs it, pane by pane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special

from ..schemas.units import EventWindow
from .base import Detector
from .chi_squared import FEWEST_EXPECTED, ChiSquared, fisher
from .kolmogorov import two_sample_p_values
from .ks import KolmogorovSmirnov
from .missing_rate import MissingRate
from .panes import Columns, summarize
from .profile import CategoricalProfile, Kind, Profile, fit
from .resample import Draw, Rows
from .windows import WindowBank, WindowSpec

# Bins are so fine that the bound exceeds √n·D by at most about this: finer where many looks lie
# near the screen, and each of them would have to be made.
_SLACK: Final = 0.12
_COARSE_SLACK: Final = 0.3
# The bound leaves out the limit law's correction for finite samples; this much covers it.
_MARGIN: Final = 0.06
# Counts held at a time: panes × features × bins.
_CHUNK: Final = 4_000_000

FOREVER_MS: Final = 2**60


@dataclass(frozen=True, slots=True)
class Looks:
    """A window as the monitor moves it, in panes: looked at each `hop`-th pane; `full_only` where
    it is not tested before it is full."""

    spec: WindowSpec
    panes: int
    hop: int
    full_only: bool

    @staticmethod
    def of(spec: WindowSpec, pane_events: int, pane_ms: int) -> Looks:
        if isinstance(spec, EventWindow):
            return Looks(spec, -(-spec.events // pane_events), 1, True)
        hop = max(1, (spec.hop_ms or pane_ms) // pane_ms)
        return Looks(spec, max(1, spec.size_ms // pane_ms), hop, False)

    def due(self, after: int, through: int) -> npt.NDArray[np.int64]:
        """The panes at whose close it is looked at, of those numbered after+1 … through."""
        first = max(after + 1, self.panes if self.full_only else 1)
        return np.arange(-(-first // self.hop) * self.hop, through + 1, self.hop)


@dataclass(frozen=True, slots=True)
class Probe:
    """One test of the monitor: a detector, the index of its feature, the index of its window."""

    detector: Detector
    feature: int
    window: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a replicate's looks came to: (K,) pane, test and log p, in order of pane."""

    pane: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    log_p: npt.NDArray[np.float64]


class Simulator:
    """Looks at null draws from the reference rows.

    Args:
        profile, rows: the reference. plan: (detector, features it tests), as the monitor has it.
        windows: the windows. pane_events: events in a pane. pane_ms: length of a pane.
        min_events: fewer values than this are not tested.
        rare: only very small p-values will be asked for. live: make every look as the monitor
            does; slow, and the same.
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
        rare: bool = False,
        live: bool = False,
    ) -> None:
        self.profile, self.rows, self.plan = profile, rows, plan
        self.pane_events, self.pane_ms, self.min_events = pane_events, pane_ms, min_events
        self.seed = seed
        self.slack = _COARSE_SLACK if rare else _SLACK
        self.looks = tuple(Looks.of(spec, pane_events, pane_ms) for spec in windows)
        self.tests = [
            Probe(detector, feature, w)
            for detector, features in plan
            for feature in features
            for w in range(len(windows))
        ]
        self.index = {(t.detector.name, t.feature, t.window): i for i, t in enumerate(self.tests)}
        fast = () if live else (KolmogorovSmirnov, ChiSquared, MissingRate)
        self.slow = [(d, f) for d, f in plan if type(d) not in fast]
        of = {type(d): list(f) for d, f in plan if type(d) in fast}
        self.ks = of.get(KolmogorovSmirnov, [])
        self.chi = of.get(ChiSquared, [])
        # A feature of which no row is without a value has nothing to simulate.
        self.rate = [i for i in of.get(MissingRate, []) if np.isnan(rows.numeric[i].rank).any()]
        self._bins()

    def _bins(self) -> None:
        events = [w.panes * self.pane_events for w in self.looks]
        wanted = [
            math.sqrt(self.rows.n * m / (self.rows.n + m)) / self.slack if self.ks else 1
            for m in events
        ]
        sizes = [min(1024, max(32, 1 << math.ceil(math.log2(b)))) if b > 1 else 1 for b in wanted]
        self.bins = bins = max(sizes)
        self.stride = [bins // b for b in sizes]
        width = bins + 1
        table = np.empty((self.rows.n, len(self.rows.numeric)), np.int32)
        # Bins that hold one atom and nothing else: inside them both functions jump together.
        self.solid = np.zeros((len(self.rows.numeric), bins), np.bool_)
        for i, f in enumerate(self.rows.numeric):
            finite = ~np.isnan(f.rank)
            rank = f.rank[finite].astype(np.int64)
            counts = np.bincount(rank)
            middle = np.cumsum(counts) - counts / 2
            bin_of = np.minimum((bins * middle / counts.sum()).astype(np.int64), bins - 1)
            distinct = np.bincount(bin_of, minlength=bins)
            atoms = np.bincount(bin_of[counts > 1], minlength=bins)
            self.solid[i] = (distinct == atoms) & (distinct <= 1)
            column = np.full(self.rows.n, bins)
            column[finite] = bin_of[rank]
            table[:, i] = column + i * width
        self.table = table
        codes = [g.code for g in self.rows.categorical]
        sizes_c = [len(g.categories) + 1 for g in self.rows.categorical]
        self.class_ends = np.cumsum(sizes_c, dtype=np.int64)
        self.class_starts = self.class_ends - np.array(sizes_c, np.int64)
        shifted = [c + s for c, s in zip(codes, self.class_starts.tolist(), strict=True)]
        self.classes = np.array(shifted, np.int32).reshape(-1, self.rows.n).T

    def run(
        self, replicate: int, n_panes: int, screen: npt.NDArray[np.float64], *, bounds: bool = False
    ) -> Seen:
        """One replicate's looks whose log p is at most `screen` (one value per test).

        bounds: give the bounds instead, of every look: quick, a little too large.
        """
        draw = Draw(self.rows, n_panes * self.pane_events, (self.seed, replicate))
        found = _Found()
        rng = np.random.default_rng([self.seed, replicate, 2])
        stretch = self.rows.memory.stretch(rng)[[t.feature for t in self.tests]]
        run = _Run(self, draw, screen / stretch, bounds, found)
        if self.ks or self.rate:
            run.numeric(n_panes)
        if self.chi:
            run.categorical(n_panes)
        if self.slow:
            run.live(n_panes)
        seen = found.seen()
        return Seen(seen.pane, seen.test, seen.log_p * stretch[seen.test])


class _Found:
    def __init__(self) -> None:
        self.parts: list[tuple[Any, Any, Any]] = []

    def add(self, pane: Any, test: Any, log_p: Any) -> None:
        pane = np.asarray(pane, np.int64)
        self.parts.append((pane, np.broadcast_to(test, pane.shape), np.asarray(log_p, np.float64)))

    def seen(self) -> Seen:
        if not self.parts:
            return Seen(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        pane, test, log_p = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.argsort(pane, kind="stable")
        return Seen(pane[order], test[order], log_p[order])


def _log(p: Any) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(p, np.float64), 1e-300))


@dataclass(slots=True, eq=False)
class _Run:
    sim: Simulator
    draw: Draw
    screen: npt.NDArray[np.float64]
    bounds: bool
    found: _Found

    def numeric(self, n_panes: int) -> None:
        sim = self.sim
        n_features, width = len(sim.rows.numeric), sim.bins + 1
        tally = np.bincount(
            sim.table[self.draw.reference].ravel(), minlength=n_features * width
        ).reshape(n_features, width)
        back = max(w.panes for w in sim.looks)
        step = max(1, _CHUNK // (n_features * width))
        # Row k - base: events through pane k that are in each bin or before it.
        through = np.zeros((1, n_features, width), np.int32)
        base = 0
        sorted_ranks: dict[int, npt.NDArray[np.float64]] = {}
        for a in range(0, n_panes, step):
            b = min(a + step, n_panes)
            rows = self.draw.stream[a * sim.pane_events : b * sim.pane_events]
            code = sim.table[rows].reshape(b - a, -1)
            code += (np.arange(b - a, dtype=np.int32) * (n_features * width))[:, None]
            counts = np.bincount(code.ravel(), minlength=(b - a) * n_features * width)
            new = counts.reshape(b - a, n_features, width).cumsum(axis=2, dtype=np.int32)
            np.cumsum(new, axis=0, out=new)
            new += through[-1]
            through = np.concatenate([through[max(0, a - base - back) :], new])
            base = b + 1 - len(through)
            for w, looks in enumerate(sim.looks):
                due = looks.due(a, b)
                if len(due):
                    ends = due - base
                    begins = np.maximum(due - looks.panes, 0) - base
                    if sim.ks:
                        self._ks(w, due, through, ends, begins, tally, sorted_ranks)
                    if sim.rate:
                        self._rate(w, due, through, ends, begins, tally)

    def _ks(
        self,
        w: int,
        due: npt.NDArray[np.int64],
        through: npt.NDArray[np.int32],
        ends: npt.NDArray[np.int64],
        begins: npt.NDArray[np.int64],
        tally: npt.NDArray[np.int64],
        sorted_ranks: dict[int, npt.NDArray[np.float64]],
    ) -> None:
        sim, stride = self.sim, self.sim.stride[w]
        n = tally[:, :-1].sum(axis=1)
        n_bins = sim.bins // stride
        mass = tally[:, :-1].reshape(-1, n_bins, stride).sum(axis=2) / np.maximum(n, 1)[:, None]
        share = mass.cumsum(axis=1).astype(np.float32)
        solid = sim.solid.reshape(-1, n_bins, stride).all(axis=2) if stride == 1 else False
        slack = np.where(solid, 0.0, mass).max(axis=1)
        thin = through[:, :, stride - 1 : sim.bins : stride]
        if len(due) > 1 and sim.looks[w].hop == 1 and begins[0] + len(begins) - 1 == begins[-1]:
            inside = thin[ends[0] : ends[-1] + 1] - thin[begins[0] : begins[-1] + 1]
        else:
            inside = thin[ends] - thin[begins]
        m = inside[:, :, -1].astype(np.float64)
        inverse = (1.0 / np.maximum(m, 1)).astype(np.float32)
        away = inside * inverse[:, :, None]
        away -= share
        furthest = np.maximum(away.max(axis=2), -away.min(axis=2))
        root = np.sqrt(m * n / np.maximum(m + n, 1))
        usable = (m >= sim.min_events) & (n > 0)
        if self.bounds:
            z = np.where(usable, furthest * root, 0.0)
            for i in sim.ks:
                self.found.add(due, sim.index["ks", i, w], math.log(2) - 2 * z[:, i] ** 2)
            return
        at = [sim.index["ks", i, w] for i in sim.ks]
        limit = np.full(len(n), np.inf)
        limit[sim.ks] = np.sqrt(np.maximum(math.log(2) - self.screen[at], 0) / 2) - _MARGIN
        look, feature = np.nonzero(((furthest + slack) * root >= limit) & usable)
        if not len(look):
            return
        numerator = np.empty(len(look), np.int64)
        sizes = np.empty((2, len(look)), np.int64)
        pe, base = sim.pane_events, due[0] - ends[0]
        for j, (k, i) in enumerate(zip(look.tolist(), feature.tolist(), strict=True)):
            reference = sorted_ranks.get(i)
            if reference is None:
                reference = sorted_ranks[i] = np.sort(self.draw.reference_ranks(i))
            x = self.draw.stream_ranks(i, int(begins[k] + base) * pe, int(due[k]) * pe)
            numerator[j] = distance(reference, x)
            sizes[:, j] = len(reference), len(x)
        p, _ = two_sample_p_values(sizes[0], sizes[1], numerator)
        tests = np.array([sim.index["ks", i, w] for i in feature.tolist()], np.int64)
        self._keep(due[look], tests, _log(p))

    def _keep(
        self,
        pane: npt.NDArray[np.int64],
        test: npt.NDArray[np.int64],
        log_p: npt.NDArray[np.float64],
    ) -> None:
        kept = log_p <= self.screen[test]
        self.found.add(pane[kept], test[kept], log_p[kept])

    def _rate(
        self,
        w: int,
        due: npt.NDArray[np.int64],
        through: npt.NDArray[np.int32],
        ends: npt.NDArray[np.int64],
        begins: npt.NDArray[np.int64],
        tally: npt.NDArray[np.int64],
    ) -> None:
        sim = self.sim
        n_reference = sim.rows.n
        both = through[ends][:, :, -2:].astype(np.int64) - through[begins][:, :, -2:]
        for i in sim.rate:
            n, absent = both[:, i, 1], both[:, i, 1] - both[:, i, 0]
            before = int(tally[i, -1])
            total, out = n_reference + n, absent + before
            pooled = out / total
            spread = pooled * (1 - pooled) * (1 / n + 1 / n_reference)
            z2 = (absent / n - before / n_reference) ** 2 / np.maximum(spread, 1e-300)
            p = special.chdtrc(1, z2)
            rarer = np.minimum(out, total - out) * np.minimum(n, n_reference) / total
            for k in np.flatnonzero((rarer < FEWEST_EXPECTED) & (out > 0)).tolist():
                p[k] = fisher(n_reference, before, int(n[k]), int(absent[k]))
            test = sim.index["missing_rate", i, w]
            log_p = np.where(n >= sim.min_events, _log(p), 0.0)
            if self.bounds:
                self.found.add(due, test, log_p)
            else:
                self._keep(due, np.full(len(due), test), log_p)

    def categorical(self, n_panes: int) -> None:
        sim, pe = self.sim, self.sim.pane_events
        size = int(sim.class_ends[-1])
        reference = np.bincount(sim.classes[self.draw.reference].ravel(), minlength=size)
        through = np.zeros((n_panes + 1, size), np.int32)
        step = max(1, _CHUNK // max(size, pe * sim.classes.shape[1]))
        for a in range(0, n_panes, step):
            b = min(a + step, n_panes)
            code = sim.classes[self.draw.stream[a * pe : b * pe]].reshape(b - a, -1)
            code = code + (np.arange(b - a) * size)[:, None]
            through[a + 1 : b + 1] = np.bincount(code.ravel(), minlength=(b - a) * size).reshape(
                b - a, size
            )
        np.cumsum(through, axis=0, out=through)
        first = sim.profile.n_numeric
        replica = self._replica(reference)
        for w, looks in enumerate(sim.looks):
            due = looks.due(0, n_panes)
            if not len(due):
                continue
            inside = through[due] - through[np.maximum(due - looks.panes, 0)]
            for i in sim.chi:
                j = i - first
                own = slice(int(sim.class_starts[j]), int(sim.class_ends[j]))
                observed, known = fold(inside[:, own], reference[own])
                log_p = _log(homogeneity_p(known, observed))
                test = sim.index["chi_squared", i, w]
                n = observed.sum(axis=1)
                log_p[n < sim.min_events] = 0.0
                if self.bounds:
                    self.found.add(due, test, log_p)
                    continue
                at = np.flatnonzero(log_p <= self.screen[test])
                exact = [replica.log_p(j, inside[k, own]) for k in at.tolist()]
                self._keep(due[at], np.full(len(at), test), np.array(exact, np.float64))

    def _replica(self, reference: npt.NDArray[np.int64]) -> _Replica:
        sim = self.sim
        counts = [
            reference[a:b]
            for a, b in zip(sim.class_starts.tolist(), sim.class_ends.tolist(), strict=True)
        ]
        return _Replica(sim.profile, sim.rows, counts)

    def live(self, n_panes: int) -> None:
        """Every look of the detectors that have no bound, as the monitor makes it."""
        sim = self.sim
        reference, stream = self.draw.columns()
        kinds: dict[str, Kind] = {f.name: f.kind for f in sim.profile.features}
        profile, _ = fit(reference, kinds, max_categories=sim.rows.n, required=False)
        names = {name: i for i, name in enumerate(profile.names)}
        plan = [
            (d, [(i, names[n]) for i in f if (n := sim.profile.features[i].name) in names])
            for d, f in sim.slow
        ]
        bank = WindowBank(profile, [w.spec for w in sim.looks], sim.pane_ms, FOREVER_MS)
        number = {id(window): w for w, window in enumerate(bank.windows)}
        starts = np.repeat(np.arange(n_panes) * sim.pane_ms, sim.pane_events)
        panes = summarize(profile, Columns.of(profile, stream), starts)
        for k, pane in enumerate(panes, 1):
            due = bank.push(k * sim.pane_ms, pane)
            due = [x for x in due if x.missing_events == 0 and x.events >= sim.min_events]
            for detector, pairs in plan:
                back = {new: old for old, new in pairs}
                if not due or not back:
                    continue
                for window, row in zip(due, detector.test(profile, due, list(back)), strict=True):
                    for o in row:
                        n = o.detail.get("n_test")
                        if o.p_value is None or (n is not None and n < sim.min_events):
                            continue
                        test = sim.index[detector.name, back[o.feature], number[id(window)]]
                        log_p = float(_log(max(o.p_value, o.confirmed_p or 0.0)))
                        if self.bounds or log_p <= self.screen[test]:
                            self.found.add([k], test, [log_p])


class _Replica:
    """The chi-squared detector on counts of one replicate: the live decision, rare classes too."""

    def __init__(
        self, profile: Profile, rows: Rows, counts: Sequence[npt.NDArray[np.int64]]
    ) -> None:
        self.seen = [np.flatnonzero(c[:-1] > 0) for c in counts]
        features = [
            CategoricalProfile(
                f.name,
                f.kind,
                tuple(g.categories[i] for i in seen.tolist()),
                c[seen],
                int(c[-1]),
            )
            for f, g, seen, c in zip(
                profile.categorical, rows.categorical, self.seen, counts, strict=True
            )
        ]
        self.profile = Profile(features, rows.n)
        bank = WindowBank(self.profile, [EventWindow(1, "")], 1, FOREVER_MS)
        self.window = bank.windows[0]

    def log_p(self, feature: int, observed: npt.NDArray[np.int32]) -> float:
        seen = self.seen[feature]
        a, b = self.profile.offsets[feature : feature + 2].tolist()
        places = self.window.layout.position[a:b]
        unseen = int(observed[:-1].sum() - observed[seen].sum())
        self.window.store[places] = np.concatenate([observed[seen], [unseen, observed[-1]]])
        [[outcome]] = ChiSquared().test(self.profile, [self.window], [feature])
        assert outcome.p_value is not None
        return float(_log(max(outcome.p_value, outcome.confirmed_p or 0.0)))


def distance(reference: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> int:
    """|D|·n_reference·n of two samples, the reference sorted.

    Between two values of the window its distribution function stands still, so the distance is
    largest at one of them or just before it.

    >>> distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 3.0]))
    4
    """
    x = np.sort(x)
    n, m = len(reference), len(x)
    below = reference.searchsorted(x, "left")
    new = x[1:] != x[:-1]
    met = reference[np.minimum(below, n - 1)] == x
    if new.all() and not met.any():
        ahead = n * np.arange(m) - m * below
        return int(max(-ahead.min(), ahead.max() + n))
    up_to = reference.searchsorted(x, "right")
    first = np.append(0, np.flatnonzero(new) + 1)
    last = np.append(first[1:], m)
    before = np.abs(n * first - m * below[first]).max()
    after = np.abs(n * last - m * up_to[first]).max()
    return int(max(before, after))


def fold(
    observed: npt.NDArray[np.int32], reference: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Counts (looks, classes) with what the reference lacks as one class, missing as the last."""
    seen = reference[:-1] > 0
    unseen = observed[:, :-1][:, ~seen].sum(axis=1, keepdims=True)
    both = np.concatenate([observed[:, :-1][:, seen], unseen, observed[:, -1:]], axis=1)
    known = np.concatenate([reference[:-1][seen], [0], reference[-1:]])
    return both.astype(np.float64), known.astype(np.float64)


def homogeneity_p(
    reference: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(looks,) p of Pearson's X² of each row of counts against the reference's."""
    n = np.maximum(observed.sum(axis=1, keepdims=True), 1.0)
    n_reference = reference.sum()
    total = observed + reference
    safe = np.maximum(total, 1.0)
    # (o - e)²/e + (r - f)²/f for two rows is (o·N - r·n)² / (n·N·total).
    terms = (observed * n_reference - reference * n) ** 2 / (safe * n * n_reference)
    degrees = (total > 0).sum(axis=1) - 1
    return np.where(degrees < 1, 1.0, special.chdtrc(np.maximum(degrees, 1), terms.sum(axis=1)))
