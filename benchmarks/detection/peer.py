"""A peer's side: the scores of one detector on one model, in the peer's own environment.

    python peer.py --peer 'river ADWIN' --model one --runs 0:60 --out FILE
    python peer.py --peer 'river ADWIN' --stream FILE --out FILE

Writes the records (see `records`) of the runs, and how far the scores were from the library's own; of a
real stream, the alarms at the threshold that keeps its budget on the null draws that come with it.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cases
import numpy as np
from records import Run, Runs, joined, record, run_time
from scorers import SCORERS

# Runs worked on at once, and events between two looks at whether a drift has long been seen.
_BATCH, _CHUNK = 10, 500


def columns(model: str, x: Any) -> Any:
    """Categories as indicators, which is what all these detectors can take."""
    if cases.MODELS[model]:
        return x
    return (x == np.arange(len(cases.SHARES))).astype(np.float64)


def stacked(model: str, parts: list[Any]) -> Any:
    """(events, runs, features)."""
    return np.stack([columns(model, p) for p in parts], axis=1)


def check(peer: str, model: str) -> float | None:
    """Largest distance of a score from the library's own, over a stretch of events with a change."""
    scorer = SCORERS[peer]()
    if not hasattr(scorer, "library"):
        return None
    reference = columns(model, cases.reference(model, 0))[:, :1]
    x = columns(model, cases.before(model, 0))[:700, :1].copy()
    if cases.MODELS[model]:
        x[400:] += 1.0
    theirs = scorer.library(reference[:, 0], x[:, 0])
    scorer = SCORERS[peer]() if not hasattr(scorer, "compared") else scorer
    if hasattr(scorer, "compared"):
        ours = scorer.compared
    else:
        scorer.fit(reference[:, None])
        if scorer.reads_reference:
            scorer.feed(reference[:, None])
        ours = scorer.feed(x[: len(theirs), None])[:, 0]
    same = np.isinf(ours) & np.isinf(theirs)
    if np.isnan(theirs).any():
        raise SystemExit(f"{peer}: the library's answer is not that of its own arithmetic")
    return float(np.abs(np.where(same, 0.0, ours) - np.where(same, 0.0, theirs)).max())


def batch(
    peer: str, model: str, numbers: list[int], stop: float
) -> tuple[list[dict[str, Any]], float]:
    """The records of some runs, and the highest score without a change; a stream that changed is left
    where its score is above `stop`, or this: no threshold lies so high."""
    scorer = SCORERS[peer]()
    reference = stacked(model, [cases.reference(model, r) for r in numbers])
    scorer.fit(reference)
    warm = np.full(len(numbers), -1e300)
    if scorer.reads_reference:
        warm = np.maximum(warm, scorer.feed(reference)[100:].max(axis=0))
    quiet = scorer.fork().feed(stacked(model, [cases.null(model, r) for r in numbers]))
    before = scorer.feed(stacked(model, [cases.before(model, r) for r in numbers])).max(axis=0)
    found = [
        {
            "number": r,
            "warm": float(warm[i]),
            "quiet": record(quiet[:, i]),
            "before": float(before[i]),
            "after": {},
        }
        for i, r in enumerate(numbers)
    ]
    stop = max(stop, float(quiet.max()))
    for case in cases.cases_of(model):
        own = scorer.fork()
        x = stacked(model, [cases.after(case, r) for r in numbers])
        records: list[Any] = [[] for _ in numbers]
        for a in range(0, cases.AFTER, _CHUNK):
            scores = own.feed(x[a : a + _CHUNK])
            for i in range(len(numbers)):
                records[i] = joined(records[i], record(scores[:, i], a + 1))
            if all(r and r[-1][1] > stop for r in records):
                break
        for i in range(len(numbers)):
            found[i]["after"][case.name] = records[i]
    return found, stop


def alarms(peer: str, data: Any) -> dict[str, Any]:
    """Of a real stream; the detector starts anew after each alarm, and where it reads the reference as
    a stream, alarms there do not count."""
    ert, known, nulls = int(data["ert"]), data["references"], data["nulls"]
    scorer = SCORERS[peer]()
    scorer.fit(known)
    warm = np.full(known.shape[1], -1e300)
    if scorer.reads_reference:
        warm = scorer.feed(known)[100:].max(axis=0)
    quiet = scorer.feed(nulls)
    made = [Run(i, float(warm[i]), record(quiet[:, i]), 0.0, {}) for i in range(quiet.shape[1])]
    runs = Runs(made, len(nulls), 0, SCORERS[peer]().step)
    threshold = runs.threshold(ert)
    stream, reference = data["stream"][:, None], data["reference"][:, None]
    fresh = SCORERS[peer]()
    fresh.fit(reference)
    skip = 0
    if fresh.reads_reference:
        stream, skip = np.concatenate([reference, stream]), len(reference)
    found: list[int] = []
    begin = at = 0
    scorer = fresh.fork()
    while at < len(stream) and len(found) < 1_000:
        scores = scorer.feed(stream[at : at + 200])[:, 0]
        if fresh.reads_reference:
            scores[: max(0, begin + 30 - at)] = -np.inf
        over = np.flatnonzero(scores >= threshold)
        if len(over):
            at += int(over[0]) + 1
            if at > skip:
                found.append(at - skip)
            begin, scorer = at, fresh.fork()
        else:
            at += len(scores)
    return {
        "alarms": found,
        "threshold": threshold,
        "run_time_on_nulls": run_time(runs, threshold).mean,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, choices=list(SCORERS))
    parser.add_argument("--model", choices=list(cases.MODELS))
    parser.add_argument("--runs", help="first:end")
    parser.add_argument("--stream", type=Path, help="a real stream, in place of a model")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.stream:
        given.out.write_text(json.dumps(alarms(given.peer, np.load(given.stream))))
        return
    first, end = (int(v) for v in given.runs.split(":"))
    distance = check(given.peer, given.model)
    begun, found, stop = time.process_time(), [], -np.inf
    for a in range(first, end, _BATCH):
        some, stop = batch(given.peer, given.model, list(range(a, min(a + _BATCH, end))), stop)
        found += some
    package = given.peer.split()[0]
    answer = {
        "version": version(package),
        "from_library": distance,
        "step": SCORERS[given.peer]().step,
        "seconds": time.process_time() - begun,
        "runs": found,
    }
    given.out.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
