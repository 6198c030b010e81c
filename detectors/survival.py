"""Expected run times from runs of which some are cut off before their alarm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def expected(
    times: npt.NDArray[np.float64], horizon: float, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(B, V) expected run times of B weightings of the replicates.

    Args:
        times: (replicates, V), infinite where beyond the horizon. weights: (B, replicates).

    >>> times = np.array([[10.0], [60.0], [80.0], [np.inf]])
    >>> expected(times, 100.0, np.ones((1, 4))).tolist()
    [[83.33333333333333]]
    """
    total = weights.sum(axis=1, keepdims=True)
    late = (times > horizon / 2) & (times <= horizon)
    until = np.minimum(times, horizon)
    alarms, exposure = weights @ late, weights @ np.maximum(until - horizon / 2, 0)
    # Few late alarms say little: all of the time then.
    few = alarms < 10
    alarms = np.where(few, weights @ (times <= horizon), alarms)
    exposure = np.where(few, weights @ until, exposure)
    surviving = weights @ (times > horizon) / total
    return weights @ until / total + surviving * exposure / np.maximum(alarms, 1.0)
