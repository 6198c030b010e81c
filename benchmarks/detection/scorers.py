"""What the peers' detectors say of every event, as scores, for many runs at once.

A scorer does a library's own arithmetic on arrays (events, runs, features): one detector per feature,
where the library's takes single numbers, and one of all features, where it takes vectors. `library`
feeds the same events to the library itself, one at a time, and `check` in `peer` compares the two.
Numpy only, beside the library asked for.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import copy
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from cases import CHANGE_AT, HORIZON

Array = npt.NDArray[Any]


class Scorer(Protocol):
    """reads_reference: it knows no reference and is fed the rows first, as a stream."""

    reads_reference: bool
    step: float

    def fit(self, reference: Array) -> None:
        """reference: (rows, runs, features)."""
        ...

    def feed(self, x: Array) -> Array:
        """(events, runs) scores; higher is more like drift."""
        ...

    def fork(self) -> Self: ...


class _Base:
    reads_reference = False
    step = 0.0

    def fit(self, reference: Array) -> None: ...

    def fork(self) -> Self:
        return copy.deepcopy(self)


# --- one number at a time, by a recursion ------------------------------------------------------


class PageHinkley(_Base):
    """river.drift.PageHinkley, mode both: score max(increase, decrease); its threshold is tuned."""

    reads_reference = True

    def __init__(self, delta: float = 0.005, alpha: float = 1 - 0.0001) -> None:
        self.delta, self.alpha, self.n = delta, alpha, 0

    def fit(self, reference: Array) -> None:
        shape = reference.shape[1:]
        self.mean, self.up, self.down = (np.zeros(shape) for _ in range(3))
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -1.0)

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for k, value in enumerate(x):
            self.n += 1
            self.mean += (value - self.mean) / self.n
            away = value - self.mean
            self.up = self.alpha * self.up + away - self.delta
            self.down = self.alpha * self.down + away + self.delta
            np.minimum(self.low, self.up, out=self.low)
            np.maximum(self.high, self.down, out=self.high)
            out[k] = np.maximum(self.up - self.low, self.high - self.down).max(axis=1)
        return out

    def library(self, reference: Array, x: Array) -> Array:
        from river.drift import PageHinkley as Theirs

        detector = Theirs(delta=self.delta, alpha=self.alpha, threshold=np.inf)
        out = []
        for value in [*reference.tolist(), *x.tolist()]:
            detector.update(value)
            d = detector
            out.append(max(d._sum_increase - d._min_increase, d._max_decrease - d._sum_decrease))
        return np.array(out[len(reference) :])


class Cusum(_Base):
    """frouros' CUSUM, PageHinkley and GeometricMovingAverage, each one-sided: one detector is fed the
    values, one their negatives. Score: its sum; `lambda_` is tuned."""

    reads_reference = True

    def __init__(self, kind: str) -> None:
        self.kind, self.n = kind, 0
        self.alpha = {"cusum": 1.0, "page_hinkley": 0.9999, "moving_average": 0.99}[kind]
        self.delta = 0.0 if kind == "moving_average" else 0.005

    def fit(self, reference: Array) -> None:
        self.mean = np.zeros(reference.shape[1:])
        self.sums = np.zeros((2, *reference.shape[1:]))

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        gain = 1 - self.alpha if self.kind == "moving_average" else 1.0
        for k, value in enumerate(x):
            self.n += 1
            self.mean += (value - self.mean) / self.n
            away = value - self.mean
            self.sums *= self.alpha
            self.sums[0] += gain * (away - self.delta)
            self.sums[1] += gain * (-away - self.delta)
            if self.kind == "cusum":
                np.maximum(self.sums, 0, out=self.sums)
            out[k] = self.sums.max(axis=(0, 2))
        return out

    def library(self, reference: Array, x: Array) -> Array:
        from frouros.detectors import concept_drift as theirs

        names = {
            "cusum": "CUSUM",
            "page_hinkley": "PageHinkley",
            "moving_average": "GeometricMovingAverage",
        }
        name = names[self.kind]
        config = getattr(theirs, name + "Config")(lambda_=1e12)
        both = [getattr(theirs, name)(config=config) for _ in range(2)]
        out = []
        for value in [*reference.tolist(), *x.tolist()]:
            both[0].update(value=value)
            both[1].update(value=-value)
            out.append(max(float(d.sum_) for d in both))
        return np.array(out[len(reference) :])


class Adwin(_Base):
    """river.drift.ADWIN itself. Whether it alarms by an event falls with `delta`, so detectors of many
    `delta` run side by side, each to its first alarm: score -log of the smallest that has alarmed."""

    reads_reference = True
    step = 0.25
    grid = np.arange(0.0, 16.0, 0.25)

    def fit(self, reference: Array) -> None:
        from river.drift import ADWIN

        self.made = [
            [
                [(s, ADWIN(delta=float(np.exp(-s)))) for s in self.grid]
                for _ in range(reference.shape[2])
            ]
            for _ in range(reference.shape[1])
        ]
        self.top = np.full(reference.shape[1], -1.0)

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for r, features in enumerate(self.made):
            scores = np.full(len(x), self.top[r])
            for f, detectors in enumerate(features):
                values = x[:, r, f].tolist()
                left = []
                for s, d in detectors:
                    at = None
                    for k, value in enumerate(values):
                        d.update(value)
                        if d.drift_detected:
                            at = k
                            break
                    if at is None:
                        left.append((s, d))
                    else:
                        scores[at] = max(scores[at], s)
                features[f] = left
            out[:, r] = np.maximum.accumulate(scores)
            self.top[r] = out[-1, r]
        return out


# --- a window, sorted --------------------------------------------------------------------------


class _Windowed(_Base):
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


class CramerVonMises(_Base):
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


class Fisher(_Base):
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


# --- vectors -----------------------------------------------------------------------------------


class _Kernel(_Base):
    """MMDDriftOnline and LSDDDriftOnline take what does not depend on the stream from the library's
    own object (kernel, split of the reference, regularisation); thresholds are not configured by it
    but tuned by the benchmark."""

    size: int

    def untuned(self, reference: Array) -> Any:
        raise NotImplementedError

    def fit(self, reference: Array) -> None:
        import torch

        self.made = []
        for r in range(reference.shape[1]):
            torch.manual_seed(r)
            self.made.append(self.prepared(self.untuned(reference[:, r].astype(np.float32))))

    def prepared(self, detector: Any) -> dict[str, Array]:
        raise NotImplementedError

    def library(self, reference: Array, x: Array) -> Array:
        import torch

        torch.manual_seed(0)
        detector = self.untuned(reference[:, None].astype(np.float32))
        with torch.no_grad():
            return np.array([detector.score(v) for v in x[:300, None].astype(np.float32)])


def _rbf(a: Array, b: Array, sigma: float) -> Array:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * (a @ b.T)
    np.maximum(squares, 0, out=squares)
    squares *= -1 / (2 * sigma**2)
    return np.exp(squares, out=squares)


class Mmd(_Kernel):
    def __init__(self, size: int) -> None:
        self.size = size

    def untuned(self, reference: Array) -> Any:
        from alibi_detect.cd.pytorch.mmd_online import MMDDriftOnlineTorch

        class Untuned(MMDDriftOnlineTorch):
            def _configure_thresholds(self) -> None:
                self.thresholds = [np.inf] * self.window_size

        return Untuned(reference, 100.0, self.size, device="cpu", verbose=False)

    def prepared(self, detector: Any) -> dict[str, Array]:
        d = detector
        known, window = d.x_ref[d.ref_inds].numpy(), d.test_window.numpy()
        sigma = float(d.kernel.sigma)
        pairs = _rbf(window, window, sigma).astype(np.float64)
        return {
            "known": known,
            "sigma": np.array(sigma),
            "own": np.array(float(d.k_xx_sub_sum)),
            "window": window,
            "near": d.k_xy.numpy().mean(axis=0, dtype=np.float64),
            "pairs": np.array((pairs.sum() - np.trace(pairs)) / 2),
        }

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for r, state in enumerate(self.made):
            for a in range(0, len(x), 500):
                out[a : a + 500, r] = self._feed(state, x[a : a + 500, r].astype(np.float32))
        return out

    def _feed(self, state: dict[str, Array], x: Array) -> Array:
        w, n, sigma = self.size, len(x), float(state["sigma"])
        near = np.concatenate([state["near"], _rbf(x, state["known"], sigma).mean(axis=1)])
        z = np.concatenate([state["window"], x])
        # Pairs of event i with the w - 1 that follow it.
        gram = _rbf(z, z, sigma)
        place = np.arange(len(z))
        apart = place[None] - place[:, None]
        band = np.where((apart > 0) & (apart < w), gram, 0)
        comes = band.sum(axis=0, dtype=np.float64)[w:]
        leaves = band.sum(axis=1, dtype=np.float64)[:n]
        pairs = float(state["pairs"]) + np.cumsum(comes - leaves)
        # What enters is paired with the w - 1 before it; what left had w - 1 after it.
        sums = np.concatenate([[0], np.cumsum(near)])
        mean = (sums[w + 1 :] - sums[1 : n + 1]) / w
        state["near"], state["window"], state["pairs"] = near[n:], z[n:], pairs[-1]
        return float(state["own"]) + 2 * pairs / (w * (w - 1)) - 2 * mean


class Lsdd(_Kernel):
    def __init__(self, size: int) -> None:
        self.size = size

    def untuned(self, reference: Array) -> Any:
        import torch
        from alibi_detect.cd.pytorch.lsdd_online import LSDDDriftOnlineTorch
        from alibi_detect.utils.pytorch import GaussianRBF, permed_lsdds

        class Untuned(LSDDDriftOnlineTorch):
            def _configure_thresholds(self) -> None:
                # As the library does for its first window, which gives the regularisation.
                w, n = self.window_size, self.n - self.n_kernel_centers
                perms = [torch.randperm(n) for _ in range(50)]
                wide = n - (2 * w - 1)
                h = GaussianRBF(np.sqrt(2.0) * self.kernel.sigma)(
                    self.kernel_centers, self.kernel_centers
                )
                _, self.H_lam_inv = permed_lsdds(
                    self.k_xc,
                    [p[:wide] for p in perms],
                    [p[wide:][:w] for p in perms],
                    h,
                    lam_rd_max=self.lambda_rd_max,
                )
                self.thresholds = [np.inf] * w

        return Untuned(reference, 100.0, self.size, device="cpu", verbose=False)

    def prepared(self, detector: Any) -> dict[str, Array]:
        d = detector
        mean = np.asarray(d._unnormalize(np.zeros_like(d.x_ref[:1])))
        return {
            "mean": mean,
            "sd": np.asarray(d._unnormalize(np.ones_like(d.x_ref[:1]))) - mean,
            "centres": d.kernel_centers.numpy(),
            "sigma": np.array(float(d.kernel.sigma)),
            "known": d.c2s.numpy(),
            "inverse": d.H_lam_inv.numpy(),
            "tail": d.k_xtc.numpy(),
        }

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for r, s in enumerate(self.made):
            z = ((x[:, r] - s["mean"]) / s["sd"]).astype(np.float32)
            for a in range(0, len(z), 1_000):
                near = _rbf(z[a : a + 1_000], s["centres"], float(s["sigma"]))
                both = np.concatenate([s["tail"], near])
                sums = np.concatenate(
                    [np.zeros((1, both.shape[1])), np.cumsum(both, 0, np.float64)]
                )
                n = len(near)
                h = s["known"] - (sums[self.size + 1 :] - sums[1 : n + 1]) / self.size
                h = h.astype(np.float32)
                out[a : a + 1_000, r] = ((h @ s["inverse"]) * h).sum(axis=1)
                s["tail"] = both[n:]
        return out


SCORERS: Final = {
    "river PageHinkley": (lambda: PageHinkley(), "river.txt"),
    "river ADWIN": (lambda: Adwin(), "river.txt"),
    "river KSWIN 100/30": (lambda: Kswin(100, 30), "river.txt"),
    "river KSWIN 500/100": (lambda: Kswin(500, 100), "river.txt"),
    "frouros CUSUM": (lambda: Cusum("cusum"), "frouros.txt"),
    "frouros PageHinkley": (lambda: Cusum("page_hinkley"), "frouros.txt"),
    "frouros GeometricMovingAverage": (lambda: Cusum("moving_average"), "frouros.txt"),
    "frouros IncrementalKSTest 100": (lambda: IncrementalKs(100), "frouros.txt"),
    "frouros IncrementalKSTest 500": (lambda: IncrementalKs(500), "frouros.txt"),
    "alibi-detect CVMDriftOnline": (
        lambda: CramerVonMises((50, 200, 1000)),
        "alibi-detect-mmd.txt",
    ),
    "alibi-detect FETDriftOnline": (lambda: Fisher((50, 200, 1000)), "alibi-detect-mmd.txt"),
    "alibi-detect MMDDriftOnline 50": (lambda: Mmd(50), "alibi-detect-mmd.txt"),
    "alibi-detect MMDDriftOnline 200": (lambda: Mmd(200), "alibi-detect-mmd.txt"),
    "alibi-detect LSDDDriftOnline 200": (lambda: Lsdd(200), "alibi-detect-mmd.txt"),
}

_ = (CHANGE_AT, HORIZON)
