"""frouros: the batch tests per look, and its incremental KS test per event."""
# pyright: reportMissingImports=false

from __future__ import annotations

import numpy as np
from frouros.detectors.data_drift import ChiSquareTest, IncrementalKSTest, KSTest
from protocol import Answer, Job, PerLook, Task, Variant, serve


def compared(task: Task, kind: type[KSTest | ChiSquareTest], **settings: str) -> Job:
    detectors = [kind() for _ in range(task.n_features)]
    for j, detector in enumerate(detectors):
        detector.fit(X=task.reference[:, j])

    def test(last_event: int, size: int) -> Answer:
        rows = task.window(last_event, size)
        found = [d.compare(X=rows[:, j], **settings)[0] for j, d in enumerate(detectors)]
        return np.array([r.statistic for r in found]), np.array([r.p_value for r in found])

    return PerLook(task, test)


def ks(task: Task) -> Job:
    return compared(task, KSTest, method="asymp")


def chi_squared(task: Task) -> Job:
    return compared(task, ChiSquareTest)


class Incremental:
    """One detector per feature and window size, updated with every event."""

    events_per_step = 1

    def __init__(self, task: Task) -> None:
        self._task = task
        self._event = 0
        self._detectors: list[list[IncrementalKSTest]] = []

    def seek(self, event: int) -> None:
        self._event = event
        self._detectors = []
        for size in self._task.windows:
            row: list[IncrementalKSTest] = []
            for j in range(self._task.n_features):
                detector = IncrementalKSTest(window_size=size)
                detector.fit(X=self._task.reference[:, j])
                # One event short of a full window: from the next update on it tests.
                for value in self._task.window(event, size - 1)[:, j]:
                    detector.update(value=value)
                row.append(detector)
            self._detectors.append(row)

    def step(self) -> list[Answer]:
        values = self._task.stream[self._event]
        self._event += 1
        found: list[Answer] = []
        for row in self._detectors:
            results = [d.update(value=v)[0] for d, v in zip(row, values, strict=True)]
            found.append((
                np.array([float(r.statistic) for r in results]),
                np.array([float(r.p_value) for r in results]),
            ))  # fmt: skip
        return found


if __name__ == "__main__":
    serve(
        ["frouros", "scipy", "numpy"],
        {
            "ks": [
                Variant("KSTest.compare, method='asymp'", ks, "wraps ks_2samp"),
                Variant(
                    "IncrementalKSTest.update",
                    Incremental,
                    "tests after every event, 100 times as often; a few events timed",
                    same_job=False,
                ),
            ],
            "chi_squared": [
                Variant("ChiSquareTest.compare", chi_squared, "counts the reference every time")
            ],
        },
    )
