"""Scores of detectors that take one number at a time: sums that are carried on, and ADWIN."""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scorer import Base

Array = npt.NDArray[Any]

# --- one number at a time, by a recursion ------------------------------------------------------


class PageHinkley(Base):
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


class Cusum(Base):
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


class Adwin(Base):
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
