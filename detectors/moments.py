"""Mean and variance of what came, from Σ and Σ² in fixed point."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from .base import Effect
from .numeric import BEYOND, FARTHEST_SD, ONE, SUM, SUM_OF_SQUARES, digits_of
from .profile import NumericProfile


def sums_in_sd(
    f: NumericProfile, sums: npt.NDArray[Any], low: float, high: float
) -> tuple[float, float]:
    """Σ and Σ² of the distances from the reference mean, in reference standard deviations.

    A value more than 256 standard deviations away is not in the sums, which only count it: it
    enters as if it lay at 256, on the side where the extremes have left the range; where both
    have, half of them on each.

    Args:
        sums: (3,) of a window or a pane. low, high: its extremes, needed where a value is so far.
    """
    total, squares = int(sums[SUM]) / ONE, int(sums[SUM_OF_SQUARES]) / ONE
    beyond = int(sums[BEYOND])
    if beyond:
        below = (low - f.mean) / f.sd < -FARTHEST_SD
        above = (high - f.mean) / f.sd > FARTHEST_SD
        total += FARTHEST_SD * beyond * (int(above) - int(below))
        squares += FARTHEST_SD**2 * beyond
    return total, squares


def in_units(f: NumericProfile, distance_sd: float) -> float:
    """The value that lies so many reference standard deviations from the reference mean."""
    value = f.mean + f.sd * distance_sd
    return round(value, digits_of(f)) if math.isfinite(value) else value


def spread_effect(f: NumericProfile, total: float, squares: float, n: int) -> Effect | None:
    """`spread_shift` of n values, at least 2, with these sums of `sums_in_sd`."""
    ratio = math.sqrt(max(0.0, (squares - total * total / n) / (n - 1)))
    if not math.isfinite(f.sd * ratio):
        return None
    return Effect("spread_shift", ratio - 1, "reference standard deviations", f.sd, f.sd * ratio)
