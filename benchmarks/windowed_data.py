"""The streams of the windowed benchmark, and scipy's answers on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency, ks_2samp

from .common import Worker

Array = npt.NDArray[Any]

HOP = 100
N_REFERENCE = 10_000
# The stream: events that fill the largest window, quiet hops that are timed, and drifting hops on
# which answers are compared too, so that p-values from 1 down to 0 are.
FILL = 10_000
TIMED_HOPS = 800
DRIFT_HOPS = 200


def make_data(folder: Path) -> None:
    """The streams, written once per run; fixed seeds, so every run has the same."""
    folder.mkdir(parents=True, exist_ok=True)
    n_stream = FILL + HOP * (TIMED_HOPS + DRIFT_HOPS)
    drift_from = FILL + HOP * TIMED_HOPS
    rng = np.random.default_rng(20_001)
    stream = rng.standard_normal((n_stream, 20))
    stream[drift_from:] += 0.05 * np.arange(20)
    np.save(folder / "ks-reference.npy", rng.standard_normal((N_REFERENCE, 20)))
    np.save(folder / "ks-stream.npy", stream)
    # Zipf-like shares: the commonest of the 50 categories is 23 times as frequent as the rarest.
    share = np.arange(1, 51) ** -0.8
    share /= share.sum()
    codes = rng.choice(50, size=(n_stream, 10), p=share)
    for j in range(10):
        # From 0 to 45 % of the events of a drifting feature take the next category.
        moved = rng.random(n_stream - drift_from) < 0.05 * j
        codes[drift_from:, j] = (codes[drift_from:, j] + moved) % 50
    np.save(folder / "chi_squared-reference.npy", rng.choice(50, size=(N_REFERENCE, 10), p=share))
    np.save(folder / "chi_squared-stream.npy", codes)


class Oracle:
    """scipy's answers on the raw rows of a window, in this process."""

    def __init__(self, folder: Path, job: str) -> None:
        self._job = job
        self._reference: Array = np.load(folder / f"{job}-reference.npy")
        self._stream: Array = np.load(folder / f"{job}-stream.npy")
        self._known: dict[tuple[int, int], tuple[Array, Array]] = {}

    def answer(self, last_event: int, size: int) -> tuple[Array, Array]:
        key = (last_event, size)
        if key not in self._known:
            rows = self._stream[last_event - size : last_event]
            found = [self._test(self._reference[:, j], rows[:, j]) for j in range(rows.shape[1])]
            self._known[key] = (np.array([f[0] for f in found]), np.array([f[1] for f in found]))
        return self._known[key]

    def _test(self, reference: Array, window: Array) -> tuple[float, float]:
        if self._job == "ks":
            asymptotic = ks_2samp(reference, window, method="asymp")
            return float(asymptotic.statistic), float(asymptotic.pvalue)
        table = np.stack([np.bincount(column, minlength=50) for column in (reference, window)])
        found = chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False)
        return float(found.statistic), float(found.pvalue)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far answers lie from scipy's: absolute for the table, relative for the check of ours."""

    statistic: float | None
    p_value: float | None
    relative: float


def differences(
    worker: Worker, oracle: Oracle, windows: Sequence[int], last_events: Sequence[int]
) -> Difference:
    largest: dict[str, float] = {}
    relative = 0.0
    for last_event in last_events:
        given = worker.ask("answers", last_event=last_event)
        for w, size in enumerate(windows):
            true = dict(zip(("statistic", "p_value"), oracle.answer(last_event, size), strict=True))
            for name, expected in true.items():
                if given[name][w] is None:
                    continue
                distance = np.abs(np.array(given[name][w], np.float64) - expected)
                largest[name] = max(largest.get(name, 0.0), float(distance.max()))
                # Below the smallest normal float a p-value has fewer digits than are asked for.
                scale = np.maximum(np.abs(expected), np.finfo(np.float64).tiny)
                relative = max(relative, float((distance / scale).max()))
    return Difference(largest.get("statistic"), largest.get("p_value"), relative)
