"""driftline in process: panes of one hop each, window counts kept, every due window tested."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from protocol import Answer, Job, Task, Variant, serve

from driftline.detectors import Columns, Window, WindowBank, detectors, fit, summarize
from driftline.schemas.units import parse_window

# A look per pane: the pane is as long as a hop, one event a millisecond.
RETENTION_MS = 3_600_000


class Streamed:
    """The columns of an inference batch go in, (statistic, p-value) per feature and window come
    out. Everything driftline keeps (counts, sums for effects, names of unseen categories) is
    charged to it, and so is keeping the windows.
    """

    def __init__(self, task: Task, job: str, hops_per_step: int) -> None:
        self.events_per_step = task.hop * hops_per_step
        self._task = task
        self._numeric = job == "ks"
        names = [f"f{j:02d}" for j in range(task.n_features)]
        # A category arrives as text, since that is what it is in a JSON event.
        texts = [f"c{code}" for code in range(1000)]
        reference = {
            name: column if self._numeric else [texts[code] for code in column]
            for name, column in zip(names, task.reference.T, strict=True)
        }
        kind = "numeric" if self._numeric else "categorical"
        self._profile, _ = fit(reference, dict.fromkeys(names, kind))
        order = [names.index(name) for name in self._profile.names]
        self._matrix = np.ascontiguousarray(task.stream.T[order])
        self._texts = (
            [] if self._numeric else [[texts[code] for code in row] for row in self._matrix]
        )
        self._back = np.argsort(order)
        self._detector = detectors()[job]
        self._event = 0
        self.seek(0)

    def _columns(self, first: int, last: int) -> Columns:
        if self._numeric:
            return Columns(last - first, self._matrix[:, first:last])
        empty = np.empty((0, last - first))
        return Columns(last - first, empty, tuple(row[first:last] for row in self._texts))

    def _pane_starts(self, first: int, last: int) -> npt.NDArray[np.int64]:
        hop = self._task.hop
        return np.arange(first, last, dtype=np.int64) // hop * hop

    def seek(self, event: int) -> None:
        specs = [parse_window(f"{size} events") for size in self._task.windows]
        self._bank = WindowBank(self._profile, specs, self._task.hop, RETENTION_MS)
        self._event = max(0, event - max(self._task.windows))
        while self._event < event:
            self._advance(min(event, self._event + 10_000))

    def _advance(self, last: int) -> list[list[Window]]:
        """Push the panes of the next events without testing."""
        first, self._event = self._event, last
        panes = summarize(self._profile, self._columns(first, last), self._pane_starts(first, last))
        return [self._bank.push(pane.start_ms + self._task.hop, pane) for pane in panes]

    def step(self) -> list[Answer]:
        first, self._event = self._event, self._event + self.events_per_step
        columns = self._columns(first, self._event)
        everything = range(self._task.n_features)
        outcomes = []
        for pane in summarize(self._profile, columns, self._pane_starts(first, self._event)):
            due = self._bank.push(pane.start_ms + self._task.hop, pane)
            outcomes = self._detector.test(self._profile, due, everything)
        return [
            (
                np.array([o.statistic for o in row], np.float64)[self._back],
                np.array([o.p_value for o in row], np.float64)[self._back],
            )
            for row in outcomes
        ]


def live(task: Task, job: str) -> Job:
    return Streamed(task, job, hops_per_step=1)


def replay(task: Task, job: str) -> Job:
    return Streamed(task, job, hops_per_step=100)


if __name__ == "__main__":
    serve(
        ["driftline", "scipy", "numpy"],
        {
            job: [
                Variant("live", partial(live, job=job), "events come a hop at a time"),
                Variant(
                    "replay",
                    partial(replay, job=job),
                    "events come 10,000 at a time; the same look at every hop",
                ),
            ]
            for job in ("ks", "chi_squared")
        },
    )
