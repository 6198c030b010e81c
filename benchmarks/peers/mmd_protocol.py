"""The worker's side of `benchmarks.mmd`: one online detector, and one permutation test, per worker.

It runs inside the peers' environments, so it needs nothing but numpy. Requests, one JSON object a
line; times are processor times:
    {"op": "hello"}                                             -> packages
    {"op": "fit", "d", "n", "sizes", "ert", "seed", "bootstraps"}   -> cpu_s
    {"op": "events", "count", "batch"}                          -> cpu_s
    {"op": "lengths", "streams", "quiet", "shift", "cap", "seed"}   -> lengths
    {"op": "permutation", "d", "n", "window", "permutations"}   -> cpu_s, p_value
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
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Online(Protocol):
    def feed(self, events: Array) -> Array:
        """(n,) whether each event was an alarm."""
        ...

    def restart(self) -> None:
        """An empty run, independent of those before as far as the library can."""
        ...


def normal(seed: Sequence[int], n: int, d: int) -> Array:
    return np.random.default_rng(list(seed)).standard_normal((n, d)).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def first_alarm(detector: Online, rng: np.random.Generator, d: int, request: dict[str, Any]) -> int:
    """Events after the `quiet` ones until the alarm, 0 if it came in those, `cap` if it did not."""
    detector.restart()
    quiet, cap = int(request["quiet"]), int(request["cap"])
    if quiet and detector.feed(rng.standard_normal((quiet, d)).astype(np.float32)).any():
        return 0
    done = 0
    while done < cap:
        events = rng.standard_normal((min(32, cap - done), d)).astype(np.float32)
        events[:, : request.get("shifted", d)] += np.float32(request["shift"])
        alarms = detector.feed(events)
        if alarms.any():
            return done + int(alarms.argmax()) + 1
        done += len(events)
    return cap


def serve(
    packages: Sequence[str],
    fit: Callable[[Array, Sequence[int], float, int, int | None], Online],
    permutation: Callable[[Array, int], Callable[[Array], float]],
) -> None:
    """Answer requests until the input ends.

    Args:
        fit: (reference, window sizes, ert, seed, simulated streams or None) to a detector.
        permutation: (reference, permutations) to a test that gives a window's p-value.
    """
    # Libraries print; the pipe is for answers only.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    detector: Any = None
    d = 0
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if request["op"] == "hello":
                answer = {"packages": {name: version(name) for name in packages}}
            elif request["op"] == "fit":
                d = int(request["d"])
                rows = normal([1, request["seed"]], request["n"], d)
                cpu_s, detector = timed(
                    lambda r=request, x=rows: fit(
                        x, r["sizes"], r["ert"], r["seed"], r.get("bootstraps")
                    )
                )
                # Timed events meet full windows.
                detector.feed(normal([2], 2 * max(request["sizes"]), d))
                answer = {"cpu_s": cpu_s}
            elif request["op"] == "events":
                batch = int(request["batch"])
                events = normal([3], int(request["count"]), d)
                parts = [events[i : i + batch] for i in range(0, len(events), batch)]
                cpu_s, _ = timed(lambda p=parts, f=detector.feed: [f(part) for part in p])
                answer = {"cpu_s": cpu_s}
            elif request["op"] == "lengths":
                rng = np.random.default_rng([4, int(request["seed"])])
                answer = {
                    "lengths": [
                        first_alarm(detector, rng, d, request) for _ in range(request["streams"])
                    ]
                }
            else:
                rows = normal([5], request["n"] + request["window"], request["d"])
                test = permutation(rows[: request["n"]], request["permutations"])
                cpu_s, p_value = timed(lambda t=test, x=rows[request["n"] :]: t(x))
                answer = {"cpu_s": cpu_s, "p_value": float(p_value)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()
