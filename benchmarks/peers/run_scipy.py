"""scipy, called as it is; and the same tests by hand with numpy, as a careful user would."""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Literal

import numpy as np
from protocol import Answer, Array, Job, PerLook, Task, Variant, serve
from scipy.special import chdtrc
from scipy.stats import chi2_contingency, ks_2samp, kstwo


def ks(method: Literal["asymp", "auto"]):
    def prepare(task: Task) -> Job:
        features = range(task.n_features)
        # Sorting a sorted reference again is cheaper for ks_2samp, and changes nothing else.
        reference = np.asfortranarray(np.sort(task.reference, axis=0))

        def test(last_event: int, size: int) -> Answer:
            rows = task.window(last_event, size)
            found = [ks_2samp(reference[:, j], rows[:, j], method=method) for j in features]
            return np.array([r.statistic for r in found]), np.array([r.pvalue for r in found])

        return PerLook(task, test)

    return prepare


def ks_by_hand(task: Task) -> Job:
    """Presorted reference, one sort and two binary searches of the window, one p-value call.

    Right for continuous data: it takes the window's values as distinct.
    """
    reference = np.ascontiguousarray(np.sort(task.reference, axis=0).T)
    n = reference.shape[1]

    def test(last_event: int, size: int) -> Answer:
        rows = np.sort(task.window(last_event, size), axis=0)
        step = np.arange(size + 1) / size
        distance = np.empty(task.n_features)
        for j, ordered in enumerate(reference):
            through = np.searchsorted(ordered, rows[:, j], "right") / n
            before = np.searchsorted(ordered, rows[:, j], "left") / n
            distance[j] = max((step[1:] - through).max(), (before - step[:-1]).max())
        return distance, kstwo.sf(distance, round(n * size / (n + size)))

    return PerLook(task, test)


def contingency(task: Task) -> Job:
    """chi2_contingency per feature; the reference is counted once."""
    features = range(task.n_features)
    k = int(max(task.reference.max(), task.stream.max())) + 1
    counted = [np.bincount(task.reference[:, j], minlength=k) for j in features]

    def test(last_event: int, size: int) -> Answer:
        rows = task.window(last_event, size)
        statistic, p_value = np.empty(task.n_features), np.empty(task.n_features)
        for j in features:
            table = np.vstack((counted[j], np.bincount(rows[:, j], minlength=k)))
            found = chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False)
            statistic[j], p_value[j] = found[0], found[1]
        return statistic, p_value

    return PerLook(task, test)


def chi_squared_by_hand(task: Task) -> Job:
    """All features counted in one pass, one vectorised formula for the statistic."""
    d = task.n_features
    k = int(max(task.reference.max(), task.stream.max())) + 1
    shift = (np.arange(d) * k)[:, None]
    n = len(task.reference)

    def count(rows: Array) -> Array:
        return np.bincount((rows.T + shift).ravel(), minlength=d * k).reshape(d, k)

    reference = count(task.reference)

    def test(last_event: int, size: int) -> Answer:
        window = count(task.window(last_event, size))
        total = reference + window
        present = total > 0
        safe = np.where(present, total, 1)
        # Two rows: the squared deviations of the window's counts are the reference's, mirrored.
        deviation = (window - total * (size / (n + size))) ** 2 / safe
        statistic = deviation.sum(axis=1) * ((n + size) / size + (n + size) / n)
        return statistic, chdtrc(present.sum(axis=1) - 1, statistic)

    return PerLook(task, test)


if __name__ == "__main__":
    serve(
        ["scipy", "numpy"],
        {
            "ks": [
                Variant(
                    "ks_2samp, method='asymp'", ks("asymp"), "computes what driftline computes"
                ),
                Variant(
                    "ks_2samp as called by default",
                    ks("auto"),
                    "the default: p-value by the exact law while both samples hold at most 10,000",
                ),
                Variant(
                    "numpy by hand",
                    ks_by_hand,
                    "presorted reference; continuous data only",
                ),
            ],
            "chi_squared": [
                Variant("chi2_contingency", contingency, "reference counted once"),
                Variant("numpy by hand", chi_squared_by_hand, "reference counted once"),
            ],
        },
    )
