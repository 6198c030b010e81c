"""Run lengths of online MMD without drift, on fresh references and streams, beside the ERT asked for.

    python -m benchmarks.mmd_run_length [--cases …] [--references 75] [--streams 8] --json FILE

Each reference is drawn anew from a normal distribution, the detector fitted to it, and run on fresh
streams until its first alarm. FILE keeps every run length; called again with the same
FILE it goes on where it was stopped. One thread; processor time is nearly all in `fit`, and grows
with the ERT and the largest window.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import numpy as np  # noqa: E402  the number of threads must be known before
import numpy.typing as npt  # noqa: E402

from driftline.detectors import OnlineMMD  # noqa: E402

from .common import machine, write_json  # noqa: E402

# A run is cut off after so many ERTs; of memoryless ones 1 in 10^13 is as long.
_CUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Case:
    """Normal rows with `d` features, `n` of them a reference; what the detector is asked for."""

    name: str
    ert: float
    d: int = 32
    n: int = 800
    sizes: tuple[int, ...] = (200,)


CASES: Final = (
    Case("200", 200.0),
    Case("400", 400.0),
    Case("2000", 2000.0),
    Case("400-d384", 400.0, d=384),
    Case("400-three", 400.0, sizes=(50, 100, 200)),
    Case("400-wide", 400.0, n=3000, sizes=(50, 200, 800)),
    Case("2000-wide", 2000.0, n=3000, sizes=(50, 200, 800)),
)


def run_lengths(case: Case, reference: int, streams: int, bootstraps: int) -> list[int]:
    """Events up to and including the first alarm, for each of some streams of one reference."""
    rng = np.random.default_rng([reference, case.d, case.n, int(case.ert)])
    rows = rng.normal(size=(case.n, case.d))
    detector = OnlineMMD.fit(
        rows, case.sizes, ert=case.ert, seed=reference, n_bootstraps=bootstraps
    )
    found = []
    for _ in range(streams):
        detector.reset()
        last = int(_CUT * case.ert)
        while detector.seen < last:
            before = detector.seen
            drifted = detector.update(rng.normal(size=(256, case.d))).drifted.any(axis=1)
            if drifted.any():
                last = before + int(drifted.argmax()) + 1
                break
        found.append(last)
    return found


def distance(lengths: npt.NDArray[np.int64], ert: float) -> float:
    """Kolmogorov distance of run lengths to the geometric law with mean `ert`."""
    ordered = np.sort(lengths)
    values, first = np.unique(ordered, return_index=True)
    at = np.append(first[1:], len(ordered)) / len(ordered)
    before = first / len(ordered)
    law, law_before = (-np.expm1((values - k) * np.log1p(-1.0 / ert)) for k in (0, 1))
    return float(max(np.abs(at - law).max(), np.abs(before - law_before).max()))


def summary(case: Case, runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Figures of one case; standard errors are over references, whose streams go together."""
    table = np.array(runs)
    lengths = table.ravel()
    per_reference = table.mean(axis=1) / case.ert
    error = per_reference.std(ddof=1) / len(table) ** 0.5 if len(table) > 1 else float("nan")
    within = table.var(axis=1, ddof=1).mean() / table.shape[1] if table.shape[1] > 1 else 0.0
    between = max(0.0, float(per_reference.var(ddof=1)) - float(within) / case.ert**2)
    return {
        "case": case.name,
        "d": case.d,
        "reference_rows": case.n,
        "window_sizes": list(case.sizes),
        "ert": case.ert,
        "references": len(table),
        "streams_each": table.shape[1],
        "realised_over_asked": float(lengths.mean() / case.ert),
        "standard_error": float(error),
        "median_over_memoryless": float(np.median(lengths) / (case.ert * np.log(2.0))),
        "silent_after_one_ert": float((lengths > case.ert).mean()),
        "kolmogorov_distance": distance(lengths, case.ert),
        # How far the mean run lengths of single references lie apart, the streams' own chance out.
        "spread_over_references": between**0.5,
        "cut_off": int((lengths >= _CUT * case.ert).sum()),
    }


def show(found: Sequence[dict[str, Any]]) -> None:
    print("| case | pairs | realised / asked | median / memoryless | silent after 1 ERT (0.37) "
          "| Kolmogorov distance | spread over references |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one in found:
        print(
            f"| {one['case']} | {one['references']} × {one['streams_each']} "
            f"| {one['realised_over_asked']:.3f} ± {one['standard_error']:.3f} "
            f"| {one['median_over_memoryless']:.2f} | {one['silent_after_one_ert']:.3f} "
            f"| {one['kolmogorov_distance']:.3f} | {one['spread_over_references']:.2f} |"
        )


def main(given: Sequence[str] | None = None) -> int:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mmd_run_length", description=__doc__.split("\n")[0]
    )
    option = parser.add_argument
    option("--cases", default="200,400,2000", help=f"which of {','.join(names)} (%(default)s)")
    option("--references", type=int, default=75, help="fresh references (%(default)s)")
    option("--streams", type=int, default=8, help="fresh streams for each (%(default)s)")
    option("--bootstraps", type=int, default=1_000, help="n_bootstraps of each fit (%(default)s)")
    option("--json", type=Path, required=True, help="run lengths and figures; gone on with")
    chosen = parser.parse_args(given)
    wanted = chosen.cases.split(",")
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"--cases {','.join(unknown)}: choose among {','.join(names)}")
    if chosen.references < 2 or chosen.streams < 2:
        parser.error("--references and --streams: at least 2 of each")
    runs: dict[str, list[list[int]]] = {}
    options = {"streams": chosen.streams, "bootstraps": chosen.bootstraps}
    if chosen.json.exists():
        before = json.loads(chosen.json.read_text())
        if before["options"] != options:
            parser.error(f"{chosen.json} was taken with {before['options']}; give the same")
        runs = before["runs"]
    found: list[dict[str, Any]] = []
    for case in CASES:
        own = runs.setdefault(case.name, []) if case.name in wanted else runs.get(case.name, [])
        if own and len(own[0]) != chosen.streams and case.name in wanted:
            parser.error(
                f"{chosen.json} has {len(own[0])} streams for each reference; give the same"
            )
        if case.name in wanted:
            for reference in range(len(own), chosen.references):
                own.append(run_lengths(case, reference, chosen.streams, chosen.bootstraps))
                print(f"\r{case.name}: {reference + 1}", end="", file=sys.stderr, flush=True)
                write_json(chosen.json, {"options": options, "runs": runs})
            print(file=sys.stderr)
        if len(own) > 1:
            found.append(summary(case, own))
    write_json(
        chosen.json,
        {"machine": machine(), "options": options, "figures": found, "runs": runs},
    )
    show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
