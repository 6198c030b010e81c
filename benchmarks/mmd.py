"""Online MMD and the MMD permutation test beside alibi-detect's: ratios of processor time, one thread.

    python -m benchmarks.mmd [--rounds 3] [--streams 40] [--json FILE]

Reference 800 rows, window 200, ERT 400, normal rows of 32 and of 384 features. Both sides run in
turn in one run, each in its own subprocess and environment; alibi-detect's (with torch, 6 GB) is
made at the first call. Half an hour on a quiet core, most of it alibi-detect's two fits and its
run lengths. Run lengths and delays are on one reference; benchmarks/mmd_run_length.py has fresh ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from .common import (
    DEFAULT_CACHE,
    PeerError,
    Spread,
    Worker,
    ensure_environment,
    machine,
    write_json,
)

HERE = Path(__file__).resolve().parent
PEER: Final = "alibi-detect-mmd"
SETUP: Final[dict[str, Any]] = {"n": 800, "sizes": [200], "ert": 400.0, "seed": 1}
THREE: Final[dict[str, Any]] = {"n": 3000, "sizes": [50, 200, 800], "ert": 400.0, "seed": 1}
# Events per timed stretch.
OURS, PEERS = 20_000, 500
CAP: Final = 40_000


def say(text: str) -> None:
    """Progress goes to stderr, figures to stdout."""
    print(text, file=sys.stderr, flush=True)


def per_event_us(worker: Worker, count: int, batch: int) -> float:
    return worker.ask("events", count=count, batch=batch)["cpu_s"] / count * 1e6


def online(
    ours: Worker, peer: Worker, d: int, rounds: int, peer_bootstraps: int | None
) -> dict[str, Any]:
    """Fit times, and per event the peer's time as a multiple of ours, round by round."""
    own_fits = [ours.ask("fit", d=d, **SETUP)["cpu_s"]]
    peer_fit = peer.ask("fit", d=d, **SETUP, bootstraps=peer_bootstraps)["cpu_s"]
    own_fits.append(ours.ask("fit", d=d, **SETUP)["cpu_s"])
    ratios: dict[str, list[float]] = {"batches of 1,000": [], "one at a time": []}
    for _ in range(rounds):
        theirs = per_event_us(peer, PEERS, 1)
        ratios["batches of 1,000"].append(theirs / per_event_us(ours, OURS, 1000))
        ratios["one at a time"].append(theirs / per_event_us(ours, OURS // 10, 1))
    return {
        "d": d,
        "peer_over_ours_per_event": {k: Spread.of(v).as_dict() for k, v in ratios.items()},
        "peer_bootstraps": peer_bootstraps,
        "peer_over_ours_fit": peer_fit / (sum(own_fits) / 2),
    }


def three(workers: Sequence[Worker], d: int, rounds: int) -> dict[str, Any]:
    """Three window sizes at once over the largest alone, on the same reference."""
    alone, together = workers
    alone.ask("fit", d=d, **{**THREE, "sizes": [max(THREE["sizes"])]})
    together.ask("fit", d=d, **THREE)
    found = []
    for _ in range(rounds):
        one = per_event_us(alone, OURS, 1000)
        found.append(per_event_us(together, OURS, 1000) / one)
    return {"d": d, "three_over_largest_alone": Spread.of(found).as_dict()}


def permutation(ours: Worker, peer: Worker, d: int, rounds: int) -> dict[str, Any]:
    """MMDDrift.predict over mmd_permutation_test: 800 against 200 rows, 999 permutations."""
    task = {"d": d, "n": 800, "window": 200, "permutations": 999}
    ratios = []
    for _ in range(rounds + 1):
        theirs, own = peer.ask("permutation", **task), ours.ask("permutation", **task)
        ratios.append(theirs["cpu_s"] / own["cpu_s"])
    # The first round warms caches and thread pools.
    return {
        "d": d,
        "peer_over_ours": Spread.of(ratios[1:]).as_dict(),
        "p_values": [own["p_value"], theirs["p_value"]],
    }


def lengths(workers: dict[str, Worker], d: int, streams: int) -> list[dict[str, Any]]:
    """Of the detectors last fitted: looks to the first alarm without drift, and events to it after
    a change that comes after 200 quiet ones."""
    found = []
    kinds = {
        "no drift": {"shift": 0.0, "quiet": 0},
        "+0.5 σ in all": {"shift": 0.5, "quiet": 200},
        "+0.5 σ in one": {"shift": 0.5, "quiet": 200, "shifted": 1},
    }
    for kind, request in kinds.items():
        for name, worker in workers.items():
            answer = worker.ask("lengths", streams=streams, cap=CAP, seed=7, **request)
            values = np.array([v for v in answer["lengths"] if v > 0], np.float64)
            found.append({
                "d": d, "kind": kind, "side": name, "streams": len(values),
                "alarmed_before": streams - len(values),
                "mean": float(values.mean()),
                "standard_error": float(values.std(ddof=1) / len(values) ** 0.5),
                "median": float(np.median(values)),
            })  # fmt: skip
            say(f"  {found[-1]}")
    return found


def show(found: dict[str, Any]) -> None:
    def spread(values: dict[str, float]) -> str:
        return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"

    print("alibi-detect's processor time as a multiple of driftline's: middle round (min to max)\n")
    print("| | fit | per event, batches of 1,000 | per event, one at a time | permutation test |")
    print("| --- | --- | --- | --- | --- |")
    for on, test in zip(found["online"], found["permutation"], strict=True):
        ratio = on["peer_over_ours_per_event"]
        print(
            f"| d = {on['d']} | {on['peer_over_ours_fit']:.3g} "
            f"| {spread(ratio['batches of 1,000'])} | {spread(ratio['one at a time'])} "
            f"| {spread(test['peer_over_ours'])} |"
        )
    print("\nWindows of 50, 200 and 800 at once, as a multiple of 800 alone:")
    for one in found["three"]:
        print(f"d = {one['d']}: {spread(one['three_over_largest_alone'])}")
    print("\n| d | | side | streams | mean | median |\n| --- | --- | --- | --- | --- | --- |")
    for one in found["lengths"]:
        print(
            f"| {one['d']} | {one['kind']} | {one['side']} | {one['streams']} "
            f"| {one['mean']:.0f} ± {one['standard_error']:.0f} | {one['median']:.0f} |"
        )


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mmd", description=__doc__.split("\n")[0]
    )
    option = parser.add_argument
    option("--cache", type=Path, default=DEFAULT_CACHE, help="environments (%(default)s)")
    option("--dimensions", default="32,384", help="features (%(default)s)")
    option("--rounds", type=int, default=3, help="interleaved rounds (%(default)s)")
    option("--streams", type=int, default=40, help="streams per run length (%(default)s)")
    option("--peer-bootstraps", type=int, help="simulated streams of alibi-detect's fit; by default "
           "its own choice, 25 · ERT. Fewer are for trying this script out: its run lengths and the "
           "ratio of fits are not the default's then")  # fmt: skip
    option("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args(given)
    if chosen.rounds < 1 or chosen.streams < 2:
        parser.error("--rounds: at least 1; --streams: at least 2")
    cache = chosen.cache.expanduser().resolve()
    interpreters = {
        "driftline": (Path(sys.executable), "run_driftline_mmd.py"),
        "alibi-detect": (
            ensure_environment(HERE / "peers" / f"{PEER}.txt", cache),
            "run_alibi_detect_mmd.py",
        ),
    }

    def start(name: str, label: str) -> Worker:
        python, script = interpreters[name]
        command = [str(python), str(HERE / "peers" / script)]
        return Worker(command, cache / "work" / f"{label}.log", limit_s=3600.0)

    workers = {name: start(name, f"mmd-{name}") for name in interpreters}
    again = start("driftline", "mmd-driftline-again")
    found: dict[str, Any] = {
        "machine": machine(), "online": [], "three": [], "permutation": [], "lengths": [],
    }  # fmt: skip
    try:
        ours, peer = workers["driftline"], workers["alibi-detect"]
        found["packages"] = {n: w.ask("hello")["packages"] for n, w in workers.items()}
        for d in (int(text) for text in chosen.dimensions.split(",")):
            say(f"d = {d}")
            found["permutation"].append(permutation(ours, peer, d, chosen.rounds))
            found["online"].append(online(ours, peer, d, chosen.rounds, chosen.peer_bootstraps))
            say(f"  {found['permutation'][-1]}\n  {found['online'][-1]}")
            found["lengths"] += lengths(workers, d, chosen.streams)
            found["three"].append(three([ours, again], d, chosen.rounds))
            if chosen.json:
                write_json(chosen.json, found)
    finally:
        for worker in (*workers.values(), again):
            worker.close()
    show(found)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PeerError as failed:
        sys.exit(f"the comparison failed: {failed}")
