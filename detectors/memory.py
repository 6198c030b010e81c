"""How reference rows follow each other: how long values remember, and whether they go in cycles.

Drawing rows for a simulation has to keep both. Values that remember are drawn in blocks; where there
is a cycle (a day), a block is drawn from the same hour of any of the days. Blocks understate how far
means wander, by shares that are known, and say what is left to chance; `Memory` carries both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

# An autocorrelation beyond so many standard errors (1/√n each) counts as one. Politis & White
# (2004) take 1.96 times √(log10 n); several features are looked at here, hence a wider band.
BAND: Final = 3.0

# Block length in correlation times. What blocks of this length lose is put back (`Memory.kept`), so
# they need not be so long as to lose nothing; longer ones would leave fewer of them, and how far
# means wander, read off few blocks, is a matter of luck.
BLOCKS_PER_TIME: Final = 6.0

# A cycle is looked for only where it came round so many times. One with sharp edges needs twice as
# many, or so: with few rounds its overtones fill the background.
FEWEST_PERIODS: Final = 4
# Its peak in the periodogram, over the background around it. One of 1e5 peaks of noise comes to 12;
# the rest is for a background that is itself estimated, and slopes.
_PEAK: Final = 30.0
_SHORTEST_PERIOD: Final = 8
# Rows of a cycle count as of one hour within a 48th of it to either side: half an hour of a day.
HOURS: Final = 48

# Draws of a window are never taken to have less of its variance.
_LEAST_KEPT: Final = 0.1

Series = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What drawing rows has to keep.

    time: τ = 1 + 2·Σ ρ(k) of what a cycle leaves, the largest of any series: so many rows carry
        the information of one. block: rows drawn together, 1 where no series remembers. period: rows
        of a cycle, 0 without one. near: rows that a block may be off its hour.
    kept: (features,) share of the long-run variance of means that draws have, below 1 by what the
        joints between blocks cut and by what the finite choice of blocks lacks.
    noise: variance, relative to its square, of the long-run variance that draws have over the true one.
    found, n: what is known of each feature's series, and how many rows told it.
    """

    time: float
    block: int
    period: float
    near: float
    kept: npt.NDArray[np.float64]
    noise: float
    found: tuple[tuple[Autocorrelation, ...], ...] = ()
    n: int = 0

    @staticmethod
    def of(features: Sequence[Sequence[Series]], n: int, *, fewest_blocks: int = 1) -> Memory:
        """Args:
        features: per feature the series, each (n,) in order of time, that may remember.
        fewest_blocks: so many blocks at least, each shorter than 6 correlation times if need be.
        """
        period = find_period([s for own in features for s in own])
        if period:
            features = [[without_cycle(s, period) for s in own] for own in features]
        found = tuple(tuple(Autocorrelation.of(s) for s in own) for own in features)
        time = max((a.time for own in found for a in own), default=1.0)
        block = min(_whole_block(time), max(1, n // fewest_blocks))
        near = float(int(period / HOURS))
        choice = n if not period else n / period * min(period, 2 * near + block)
        kept = np.array([min((a.kept(block) for a in own), default=1.0) for own in found])
        noise = 0.0 if block == 1 else 4 / 3 * block / n
        return Memory(time, block, period, near, kept - block / choice, noise, found, n)

    @property
    def whole_block(self) -> int:
        """What `block` is where there are rows enough."""
        return _whole_block(self.time)

    def kept_of(self, window: int) -> npt.NDArray[np.float64]:
        """(features,) share of the variance between a window's mean and the reference's that draws
        have: near 1 for windows that are short beside a block, `kept` for long ones.

        Rows drawn from one set lack the variance of that set's own mean, whole blocks divided by how
        many they are.
        """
        n, block = self.n, self.block
        if block == 1:
            return np.ones(len(self.found))

        def share(a: Autocorrelation) -> float:
            of_reference = a.variance(n)
            drawn = a.variance(window, block) + a.variance(n, block)
            lost = of_reference * (min(1.0, block / window) + block / n)
            return max(_LEAST_KEPT, (drawn - lost) / (a.variance(window) + of_reference))

        return np.array([min((share(a) for a in own), default=1.0) for own in self.found])

    def stretch(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """(features,) what the log of a p-value is multiplied by in one replicate.

        log p is, but for slow terms, the square of a deviation over its variance. Draws whose
        variance is `kept` of the true one get it back. And levels that were set from an estimate of
        that variance meet streams that have the true one: the ratio is that of an F statistic, as
        in Student's t, here with the degrees of freedom that `noise` leaves.
        """
        if not self.noise:
            return 1.0 / self.kept
        degrees = 2 / self.noise
        return degrees / rng.chisquare(degrees, len(self.kept)) / self.kept


def _whole_block(time: float) -> int:
    return 1 if time <= 1.0 else math.ceil(BLOCKS_PER_TIME * time)


@dataclass(frozen=True, slots=True, eq=False)
class Autocorrelation:
    """rho: (K,) autocorrelations at lags 1 … K, weighted down to where they leave off."""

    rho: npt.NDArray[np.float64]

    @staticmethod
    def of(series: Series) -> Autocorrelation:
        """The cut: the first lag m after which a run of max(5, √log10 n) lags lies within the noise
        band; lags up to 2m enter with flat-top weights (Politis & White 2004, section 3.2)."""
        n = len(series)
        x = series - series.mean()
        if n < 30 or not x.any():
            return Autocorrelation(np.zeros(0))
        size = 1 << (2 * n - 1).bit_length()
        spectrum = np.fft.rfft(x, size)
        rho = np.fft.irfft(spectrum * spectrum.conj(), size)[: n // 4 + 1]
        rho = rho[1:] / rho[0]
        outside = np.abs(rho) > BAND * math.sqrt(max(1.0, math.log10(n)) / n)
        run = max(5, math.ceil(math.sqrt(math.log10(n))))
        quiet = np.convolve(outside, np.ones(run), "valid") == 0
        cut = int(quiet.argmax()) if quiet.any() else len(outside)
        lags = np.arange(1, min(2 * cut, len(outside)) + 1)
        return Autocorrelation(np.clip(2 * (1 - lags / (2 * cut + 1)), 0, 1) * rho[: len(lags)])

    @property
    def time(self) -> float:
        return max(1.0, float(1 + 2 * self.rho.sum()))

    def variance(self, rows: int, block: float = math.inf) -> float:
        """Of the mean of so many rows (drawn in such blocks), where one row's is 1.

        >>> Autocorrelation(np.array([0.5])).variance(2, 2)  # (2 + 2·0.5·½) / 2²
        0.625
        """
        lags = np.arange(1, len(self.rho) + 1)
        weight = np.clip(1 - lags / rows, 0, 1) * np.clip(1 - lags / block, 0, 1)
        return max(1 / rows, float(1 + 2 * (weight * self.rho).sum())) / rows

    def kept(self, block: int) -> float:
        """Share of the long-run variance that blocks of so many rows keep; at most 1.

        >>> Autocorrelation(np.array([0.5])).kept(10)  # (1 + 2·0.9·0.5) / (1 + 2·0.5)
        0.95
        """
        lags = np.arange(1, len(self.rho) + 1)
        own = float(1 + 2 * (np.clip(1 - lags / block, 0, 1) * self.rho).sum())
        return min(1.0, own / self.time)


def correlation_time(series: Series) -> float:
    """τ = 1 + 2·Σ ρ(k) up to where the autocorrelations ρ leave off; 1 for independent values.

    >>> rng = np.random.default_rng(0)
    >>> correlation_time(rng.normal(size=4000))
    1.0
    """
    return Autocorrelation.of(series).time


def find_period(series: Sequence[Series]) -> float:
    """Rows of the longest cycle that stands out in any of the series, 0 where there is none.

    A cycle is a peak of the tapered periodogram above the median around it, from four times round
    on. The series in which it stands out most tells its length: where the power of it and its next
    two harmonics is largest; a whole number where that is as good.

    >>> t = np.arange(4000)
    >>> noise = np.random.default_rng(0).normal(size=4000)
    >>> find_period([noise]), find_period([noise, noise + 5 * np.sin(2 * np.pi * t / 200)])
    (0.0, 200.0)
    """
    peaks = [(*_longest_peak(s), i) for i, s in enumerate(series)]
    longest = min((k for k, _, _ in peaks if k), default=0)
    if not longest:
        return 0.0
    _, _, strongest = max((p for p in peaks if 0 < p[0] <= longest + 1), key=lambda p: p[1])
    n = len(series[strongest])
    x = _tapered(series[strongest])
    # Times round, first to a 16th, then to a 256th.
    rounds, step = float(longest), 1 / 16
    for _ in range(2):
        near = rounds + step * np.arange(-16, 17)
        rounds = float(near[np.argmax([_power_of(x, r) for r in near.tolist()])])
        step /= 16
    whole = max(1, round(n / rounds))
    # Rounded to rows, it is off by a 64th of a cycle at the end.
    return float(whole) if abs(n / whole - rounds) <= 1 / 64 else n / rounds


def _tapered(series: Series) -> Series:
    return (series - series.mean()) * np.hanning(len(series))


def _power_of(tapered: Series, rounds: float) -> float:
    """The power of a cycle that comes round so often, and of its next two harmonics."""
    turn = np.exp(-2j * math.pi * rounds / len(tapered) * np.arange(len(tapered)))
    power, harmonic = 0.0, np.ones(len(tapered), np.complex128)
    for _ in range(3):
        harmonic *= turn
        power += float(np.abs(harmonic @ tapered) ** 2)
    return power


def _longest_peak(series: Series) -> tuple[int, float]:
    """(how often the longest cycle came round, its power over the background); (0, 0) for none."""
    power = np.abs(np.fft.rfft(_tapered(series))) ** 2
    for k in _candidates(power, len(series) // _SHORTEST_PERIOD):
        around = np.concatenate([power[max(1, k // 2) : k - 2], power[k + 3 : 2 * k + 5]])
        background = float(np.median(around)) / math.log(2)
        if power[k] > _PEAK * background > 0:
            return k, float(power[k]) / background
    return 0, 0.0


def _candidates(power: npt.NDArray[np.float64], most: int) -> list[int]:
    """Local peaks from FEWEST_PERIODS to `most` that may stand out: those a quarter as high as is
    wanted over the lowest background, by octaves, near them. Only they are looked at closely."""
    octave = np.log2(np.maximum(np.arange(len(power)), 1)).astype(np.int64)
    median = np.array([np.median(power[octave == j]) for j in range(int(octave[-1]) + 1)])
    beyond = np.concatenate([median[:1], median, median[-1:], median[-1:]])
    lowest = np.min([beyond[i : i + len(median)] for i in range(4)], axis=0)[octave]
    k = np.arange(FEWEST_PERIODS, min(most, len(power) - 2) + 1)
    peak = (power[k] >= power[k - 1]) & (power[k] >= power[k + 1])
    return k[peak & (power[k] > _PEAK / 4 / math.log(2) * lowest[k])].tolist()


def without_cycle(series: Series, period: float) -> Series:
    """The series less its mean at that hour of the cycle."""
    hours = int(min(HOURS, period))
    hour = (np.arange(len(series)) % period * (hours / period)).astype(np.int64)
    hour = np.minimum(hour, hours - 1)
    mean = np.bincount(hour, series, hours) / np.maximum(np.bincount(hour, minlength=hours), 1)
    return series - mean[hour]
