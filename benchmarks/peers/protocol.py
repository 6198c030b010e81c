"""The worker's side of a benchmark: a peer's script offers variants, this file times them.

It runs inside the peers' environments, so it needs nothing but numpy.

Requests, one JSON object a line:
    {"op": "hello"}                                          -> packages, variants
    {"op": "prepare", "data", "job", "variant", "windows"}   -> prepare_s, events_per_step
    {"op": "run", "first_event", "steps"}                    -> events, wall_s, cpu_s
    {"op": "answers", "last_event"}                          -> statistic, p_value per window
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# (statistic, p-value) of every feature; None where a library does not compute it.
Answer = tuple[Array | None, Array | None]


@dataclass(frozen=True)
class Task:
    """Everything a variant is given before the clock starts.

    reference: (n_reference, n_features); stream: (n_events, n_features). Both in column order, so
    that nobody pays for a strided column. `hop` is the events between two looks; `windows` are the
    sizes, in events, that each look tests.
    """

    reference: Array
    stream: Array
    hop: int
    windows: tuple[int, ...]

    @property
    def n_features(self) -> int:
        return self.reference.shape[1]

    def window(self, last_event: int, size: int) -> Array:
        """The rows of the window of `size` events that ends before `last_event`."""
        return self.stream[last_event - size : last_event]


class Job(Protocol):
    """A prepared variant. `seek` is not timed; each `step` is, and moves on by its events."""

    events_per_step: int

    def seek(self, event: int) -> None:
        """Be in the state of having seen the stream's first `event` events."""
        ...

    def step(self) -> list[Answer]:
        """Take the next events; answer once per window size."""
        ...


@dataclass(frozen=True)
class Variant:
    """One way of using a library.

    same_job: it answers the question asked (this window against this reference at this look); when
        False, `note` says what it does instead.
    uses_windows: False for one that has no window sizes; it is then timed once.
    """

    name: str
    prepare: Callable[[Task], Job]
    note: str = ""
    same_job: bool = True
    uses_windows: bool = True


class PerLook:
    """A job for a library that is called with a whole window. It is handed the rows for nothing:
    keeping the window is not charged to it."""

    def __init__(self, task: Task, test: Callable[[int, int], Answer]) -> None:
        """test: called with (last_event, size) for each window."""
        self.events_per_step = task.hop
        self._windows = task.windows
        self._test = test
        self._event = 0

    def seek(self, event: int) -> None:
        self._event = event

    def step(self) -> list[Answer]:
        self._event += self.events_per_step
        return [self._test(self._event, size) for size in self._windows]


def run_steps(job: Job, first_event: int, steps: int) -> dict[str, Any]:
    job.seek(first_event)
    gc.collect()
    cpu = time.process_time()
    wall = time.perf_counter()
    for _ in range(steps):
        job.step()
    wall = time.perf_counter() - wall
    cpu = time.process_time() - cpu
    return {"events": steps * job.events_per_step, "wall_s": wall, "cpu_s": cpu}


def answers(job: Job, last_event: int) -> dict[str, Any]:
    job.seek(last_event - job.events_per_step)

    def listed(values: Array | None) -> list[float] | None:
        return None if values is None else [float(v) for v in values]

    found = job.step()
    return {"statistic": [listed(s) for s, _ in found], "p_value": [listed(p) for _, p in found]}


def load(request: dict[str, Any]) -> Task:
    folder = Path(request["data"])
    reference, stream = (
        np.asfortranarray(np.load(folder / f"{request['job']}-{part}.npy"))
        for part in ("reference", "stream")
    )
    return Task(reference, stream, int(request["hop"]), tuple(request["windows"]))


def serve(packages: Sequence[str], variants: dict[str, Sequence[Variant]]) -> None:
    """Answer requests until the input ends.

    Args:
        packages: distributions whose versions are reported.
        variants: for each job (`ks`, `chi_squared`) what this peer can do.
    """
    # Libraries print; the pipe is for answers only.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    job: Job | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if request["op"] == "hello":
                answer = {
                    "packages": {name: version(name) for name in packages},
                    "variants": {
                        name: [
                            {f.name: getattr(v, f.name) for f in fields(v) if f.name != "prepare"}
                            for v in offered
                        ]
                        for name, offered in variants.items()
                    },
                }
            elif request["op"] == "prepare":
                named = {v.name: v for v in variants[request["job"]]}
                task = load(request)
                start = time.perf_counter()
                job = named[request["variant"]].prepare(task)
                answer = {
                    "prepare_s": time.perf_counter() - start,
                    "events_per_step": job.events_per_step,
                }
            elif job is None:
                raise RuntimeError(f"{request['op']!r} before 'prepare'")
            elif request["op"] == "run":
                answer = run_steps(job, int(request["first_event"]), int(request["steps"]))
            else:
                answer = answers(job, int(request["last_event"]))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()
