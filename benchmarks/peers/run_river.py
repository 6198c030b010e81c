"""river: detectors that are fed event by event and know no reference. Another thing than a
windowed test against a reference, and here because a reader will ask for them."""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from protocol import Answer, Job, Task, Variant, serve
from river.drift import ADWIN, KSWIN, PageHinkley


class Detector(Protocol):
    def update(self, x: float) -> object: ...


class PerEvent:
    """One detector per feature. The window sizes of the task do not apply to it."""

    events_per_step = 1

    def __init__(self, task: Task, make: Callable[[int], Detector], warm_events: int) -> None:
        self._make = make
        self._warm_events = warm_events
        self._detectors: list[Detector] = []
        # Python floats, as they come out of a decoder: numpy's scalars would only slow river down.
        self._rows: list[list[float]] = task.stream.tolist()
        self._event = 0

    def seek(self, event: int) -> None:
        self._event = event
        self._detectors = [self._make(j) for j in range(len(self._rows[0]))]
        for row in self._rows[event - self._warm_events : event]:
            for detector, value in zip(self._detectors, row, strict=True):
                detector.update(value)

    def step(self) -> list[Answer]:
        for detector, value in zip(self._detectors, self._rows[self._event], strict=True):
            detector.update(value)
        self._event += 1
        return [(None, None)]


def kswin(task: Task) -> Job:
    # A level so low that no alarm empties the window while it is timed.
    def make(seed: int) -> KSWIN:
        return KSWIN(alpha=1e-9, window_size=500, stat_size=100, seed=seed)

    return PerEvent(task, make, warm_events=520)


def adwin(task: Task) -> Job:
    return PerEvent(task, lambda _: ADWIN(delta=0.002), warm_events=2000)


def page_hinkley(task: Task) -> Job:
    return PerEvent(task, lambda _: PageHinkley(), warm_events=500)


if __name__ == "__main__":
    serve(
        ["river", "scipy", "numpy"],
        {
            "ks": [
                Variant(
                    "KSWIN, window 500, stat 100",
                    kswin,
                    "100 latest against 100 earlier events, after every event; no reference",
                    same_job=False,
                    uses_windows=False,
                ),
                Variant(
                    "ADWIN",
                    adwin,
                    "mean shift only, after every event; no reference, no p-value",
                    same_job=False,
                    uses_windows=False,
                ),
                Variant(
                    "PageHinkley",
                    page_hinkley,
                    "mean shift only, after every event; no reference, no p-value",
                    same_job=False,
                    uses_windows=False,
                ),
            ],
            "chi_squared": [],
        },
    )
