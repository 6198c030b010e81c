"""Scores of detectors that compare a window with other values of a feature."""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scorer import Base

Array = npt.NDArray[Any]

# --- a window, sorted --------------------------------------------------------------------------


class _Windowed(Base):
    """Keeps the last `size` events; `window_scores` answers for whole windows."""

    size: int

    def fit(self, reference: Array) -> None:
        self.tail = reference[:0]

    def window_scores(self, x: Array, run: int, feature: int) -> Array:
        """(n - size + 1,) of the n values of one feature."""
        raise NotImplementedError

    def feed(self, x: Array) -> Array:
        x = np.concatenate([self.tail, x])
        n = len(x) - len(self.tail)
        self.tail = x[max(0, len(x) - self.size + 1) :]
        out = np.full((n, x.shape[1]), -np.inf)
        if len(x) >= self.size:
            for r in range(x.shape[1]):
                for f in range(x.shape[2]):
                    found = self.window_scores(np.ascontiguousarray(x[:, r, f]), r, f)
                    np.maximum(out[n - len(found) :, r], found, out=out[n - len(found) :, r])
        return out


def ks_distance(old: Array, new: Array) -> Array:
    """(n,) KS distance of the rows of two (n, m) arrays, ties included."""
    m = old.shape[1]
    both = np.concatenate([old, new], axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    steps = np.where(order < m, 1, -1).cumsum(axis=1)
    values = np.take_along_axis(both, order, axis=1)
    last = np.ones(values.shape, bool)
    last[:, :-1] = values[:, 1:] != values[:, :-1]
    return np.abs(np.where(last, steps, 0)).max(axis=1) / m


class Kswin(_Windowed):
    """river.drift.KSWIN: the latest `stat` values of a window against as many drawn from its others.
    Score: the distance, of which the p-value is a function; `alpha` is tuned."""

    reads_reference = True

    def __init__(self, size: int = 100, stat: int = 30) -> None:
        self.size, self.stat, self.step = size, stat, 1 / stat
        self.rng = np.random.default_rng(size)

    def window_scores(self, x: Array, run: int, feature: int) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size)
        out = np.empty(len(windows))
        older = self.size - self.stat
        for a in range(0, len(windows), 2_000):
            part = windows[a : a + 2_000]
            keys = self.rng.random((len(part), older), np.float32)
            drawn = np.argpartition(keys, self.stat - 1, axis=1)[:, : self.stat]
            old = np.take_along_axis(part, drawn, axis=1)
            out[a : a + 2_000] = ks_distance(old, part[:, older:])
        return out

    def library(self, reference: Array, x: Array) -> Array:
        from random import Random

        from river.drift import KSWIN
        from scipy.stats import ks_2samp

        detector = KSWIN(alpha=0.0, window_size=self.size, stat_size=self.stat, seed=1)
        rng, ours, theirs = Random(1), [], []
        x = x[: self.size + 150]
        for k, value in enumerate(x.tolist()):
            detector.update(value)
            if k >= self.size - 1:
                window = x[k + 1 - self.size : k + 1]
                drawn = rng.sample(range(self.size - self.stat), self.stat)
                d = ks_distance(window[None, drawn], window[None, -self.stat :])[0]
                asked = ks_2samp(window[drawn], window[-self.stat :])
                ours.append(d)
                theirs.append(asked.statistic if asked.pvalue == detector.p_value else np.nan)
        # Both of the same draws: what `check` compares is the library's answer with ours.
        self.compared = np.array(ours)
        return np.array(theirs)


class IncrementalKs(_Windowed):
    """frouros' IncrementalKSTest: a window against the reference. Score: the distance."""

    def __init__(self, size: int) -> None:
        self.size = size

    def fit(self, reference: Array) -> None:
        super().fit(reference)
        self.sorted = np.sort(reference, axis=0)

    def window_scores(self, x: Array, run: int, feature: int) -> Array:
        known = np.ascontiguousarray(self.sorted[:, run, feature])
        share = np.searchsorted(known, x, "right") / len(known)
        windows = np.lib.stride_tricks.sliding_window_view(share, self.size)
        out = np.empty(len(windows))
        step = np.arange(self.size) / self.size
        for a in range(0, len(windows), 2_000):
            u = np.sort(windows[a : a + 2_000], axis=1) - step
            out[a : a + 2_000] = np.maximum(u.max(axis=1), 1 / self.size - u.min(axis=1))
        return out

    def library(self, reference: Array, x: Array) -> Array:
        from frouros.detectors.data_drift import IncrementalKSTest

        detector = IncrementalKSTest(window_size=self.size)
        detector.fit(X=reference)
        found = [detector.update(value=v)[0] for v in x[: self.size + 200].tolist()]
        return np.array([-np.inf if f is None else float(f.statistic) for f in found])


class CramerVonMises(Base):
    """alibi-detect's CVMDriftOnline, windows of several sizes; its threshold is tuned.

    Its two sums of squared differences, over the reference's points and over the window's, come to
    sums over r, the reference values below each of the window's, and over pairs of them:
    Σ (2·place - 1)·r = Σ Σ max(r, r'). Values without ties."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def fit(self, reference: Array) -> None:
        self.sorted = np.sort(reference, axis=0)
        self.tail = np.zeros((0, *reference.shape[1:]), np.int64)

    def feed(self, x: Array) -> Array:
        n = len(self.sorted)
        rank = np.empty(x.shape, np.int64)
        for r in range(x.shape[1]):
            for f in range(x.shape[2]):
                rank[:, r, f] = np.searchsorted(self.sorted[:, r, f], x[:, r, f], "left")
        before = len(self.tail)
        rank = np.concatenate([self.tail, rank])
        self.tail = rank[max(0, len(rank) - max(self.sizes)) :]
        out = np.full(x.shape[:2], -np.inf)
        for w in self.sizes:
            if len(rank) < w:
                continue
            for r in range(x.shape[1]):
                for f in range(x.shape[2]):
                    found = self._statistic(rank[:, r, f], w, n)[max(0, before - w + 1) :]
                    own = out[len(x) - len(found) :, r]
                    np.maximum(own, found, out=own)
        return out

    @staticmethod
    def _statistic(rank: Array, w: int, n: int) -> Array:
        """(len - w + 1,) of every whole window."""
        small = np.ascontiguousarray(rank, np.int16)
        pairs = np.zeros(len(rank) - w + 1)
        first = rank[:w]
        pairs[0] = np.maximum(first[:, None], first[None, :]).sum()
        windows = np.lib.stride_tricks.sliding_window_view(small, w)
        # From one window to the next: pairs with the value that leaves, pairs with the one that comes.
        for a in range(0, len(windows) - 1, 500):
            b = min(a + 500, len(windows) - 1)
            leaves = np.maximum(windows[a:b], small[a:b, None]).sum(axis=1, dtype=np.int64)
            comes = small[a + w : b + w]
            enters = np.maximum(windows[a + 1 : b + 1], comes[:, None]).sum(axis=1, dtype=np.int64)
            # The pair of a value with itself counts once, any other twice.
            pairs[a + 1 : b + 1] = 2 * enters - comes - (2 * leaves - small[a:b])
        pairs = np.cumsum(pairs)
        total = np.concatenate([[0], np.cumsum(rank)])
        squares = np.concatenate([[0], np.cumsum(rank * rank)])
        s, q = total[w:] - total[:-w], squares[w:] - squares[:-w]
        by_place = (pairs + s) / 2  # Σ place·r
        on_window = q / n**2 - 2 * by_place / (n * w) + (w + 1) * (2 * w + 1) / (6 * w)
        crossed = w * n * (n + 1) / 2 - (q + s) / 2
        reached = w * w * n - pairs
        on_reference = (n + 1) * (2 * n + 1) / (6 * n) - 2 * crossed / (n * w) + reached / w**2
        mean = 1 / 6 + 1 / (6 * (n + w))
        variance = (n + w + 1) * (4 * n * w * (n + w) - 3 * (n * n + w * w) - 2 * n * w)
        variance /= 45 * (n + w) * (n + w) * 4 * n * w
        return ((on_window + on_reference) * n * w / (n + w) ** 2 - mean) / np.sqrt(variance)

    def library(self, reference: Array, x: Array) -> Array:
        from alibi_detect.cd import CVMDriftOnline

        class Untuned(CVMDriftOnline):
            def _configure_thresholds(self) -> None:
                self.thresholds = np.full((1, 1), np.inf)

        detector = Untuned(reference[:, None], 100.0, list(self.sizes), verbose=False)
        x = x[: self.sizes[0] + 100]
        found = [detector.score(np.array([v])) for v in x.tolist()]
        return np.array([-np.inf if np.isnan(s).all() else np.nanmax(s) for s in found])


class Fisher(Base):
    """alibi-detect's FETDriftOnline on indicators of the categories, both alternatives; score
    -log(1 - its statistic), which is 1 - p smoothed; its threshold is tuned."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes, self.lam = sizes, 0.99

    def fit(self, reference: Array) -> None:
        from scipy.stats import hypergeom

        n = len(reference)
        self.total = np.zeros((1, *reference.shape[1:]), np.int64)
        self.smooth: dict[tuple[int, int], Array | None] = {}
        self.table: dict[tuple[int, int], Array] = {}
        ones = reference.sum(axis=0).astype(np.int64)[None]
        for w in self.sizes:
            k = np.arange(w + 1)[:, None, None]
            self.table[w, 0] = hypergeom.cdf(ones, n + w, ones + k, n)
            self.table[w, 1] = hypergeom.cdf(k, n + w, ones + k, w)

    def feed(self, x: Array) -> Array:
        sums = np.concatenate([self.total, self.total[-1] + np.cumsum(x, axis=0, dtype=np.int64)])
        out = np.full(x.shape[:2], -np.inf)
        before = len(self.total)
        runs, features = np.indices(x.shape[1:])
        for w in self.sizes:
            begin = max(before, w)
            if len(sums) <= w:
                continue
            inside = sums[begin:] - sums[begin - w : len(sums) - w]
            for side in (0, 1):
                p = self.table[w, side][inside, runs, features]
                value = self.smooth.get((w, side))
                smooth = np.empty(p.shape)
                for k in range(len(p)):
                    value = p[k] if value is None else (1 - self.lam) * value + self.lam * p[k]
                    smooth[k] = value
                self.smooth[w, side] = value
                own = out[len(x) - len(p) :]
                np.maximum(own, -np.log(np.maximum(smooth, 1e-300).min(axis=2)), out=own)
        self.total = sums[max(0, len(sums) - max(self.sizes)) :]
        return out

    def library(self, reference: Array, x: Array) -> Array:
        from alibi_detect.cd import FETDriftOnline

        class Untuned(FETDriftOnline):
            def _configure_thresholds(self) -> None:
                self.thresholds = np.full((1, 1), np.inf)
                self.permit_probs = np.full((1, 1), np.inf)

        out = np.full(len(x), -np.inf)
        for side in ("greater", "less"):
            detector = Untuned(
                reference[:, None].astype(int),
                100.0,
                list(self.sizes),
                alternative=side,
                verbose=False,
            )
            for k, value in enumerate(x.astype(int).tolist()):
                detector.predict(np.array([value]))
                found = detector.test_stats[-1]
                if not np.isnan(found).all():
                    out[k] = max(out[k], -np.log(max(1e-300, 1 - float(np.nanmax(found)))))
        return out
