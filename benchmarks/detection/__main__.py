"""Detection delay at equal run time without drift: driftline beside other libraries' detectors.

    python -m benchmarks.detection [--models one,twenty] [--peers 'driftline;river ADWIN'] [--runs 0:60]
    python -m benchmarks.detection --report [--markdown FILE] [--svg FILE] [--json FILE]
    python -m benchmarks.detection --data DIR

Runs are kept under --cache and merged with those that are there, so that parts can be made one after
the other; --report only reads them. `docs/detection.md` says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import DEFAULT_CACHE, WORKER_ENVIRONMENT, ensure_environment, write_json

from . import cases, ours, real, report

HERE = Path(__file__).parent
PEERS = {
    # Peer → requirements of its environment, models it can watch.
    "river PageHinkley": ("river", ("one", "twenty", "category")),
    "river ADWIN": ("river", ("one", "twenty", "category")),
    "river KSWIN 100/30": ("river", ("one", "twenty")),
    "river KSWIN 500/100": ("river", ("one",)),
    "frouros CUSUM": ("frouros", ("one", "twenty", "category")),
    "frouros PageHinkley": ("frouros", ("one", "twenty", "category")),
    "frouros GeometricMovingAverage": ("frouros", ("one", "twenty", "category")),
    "frouros IncrementalKSTest 100": ("frouros", ("one", "twenty")),
    "frouros IncrementalKSTest 500": ("frouros", ("one", "twenty")),
    "alibi-detect CVMDriftOnline": ("alibi-detect-mmd", ("one", "twenty")),
    "alibi-detect FETDriftOnline": ("alibi-detect-mmd", ("category",)),
    "alibi-detect MMDDriftOnline 50": ("alibi-detect-mmd", ("one", "twenty")),
    "alibi-detect MMDDriftOnline 200": ("alibi-detect-mmd", ("one", "twenty", "category")),
    "alibi-detect LSDDDriftOnline 200": ("alibi-detect-mmd", ("one", "twenty")),
}


def run(peer: str, model: str, span: str, cache: Path, records: Path) -> None:
    first, end = (int(v) for v in span.split(":"))
    out = records / f"{report.slug(peer)}.{model}.{first}-{end}.json"
    if peer in ours.VARIANTS:
        kind = "numeric" if cases.MODELS[model] else "categorical"
        if kind in ours.VARIANTS[peer][0]:
            out.write_text(json.dumps(ours.measure(model, first, end, peer)))
        return
    requirements, models = PEERS[peer]
    if model not in models:
        return
    python = ensure_environment(HERE.parent / "peers" / f"{requirements}.txt", cache)
    command = [str(python), str(HERE / "peer.py"), "--peer", peer, "--model", model]
    done = subprocess.run(
        [*command, "--runs", span, "--out", str(out)],
        env={**os.environ, **WORKER_ENVIRONMENT},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        print(f"{peer} on {model}: not measured: {''.join(last)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(cases.MODELS))
    parser.add_argument("--peers", help="some of: " + "; ".join([*ours.VARIANTS, *PEERS]))
    parser.add_argument("--runs", default="0:60", help="first:end; each number is a stream")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--report", action="store_true", help="only read what the cache holds")
    parser.add_argument("--data", type=Path, help="a folder of real streams; see docs/detection.md")
    parser.add_argument("--streams", help="some of: " + "; ".join(real.STREAMS))
    for name in ("json", "markdown", "svg"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    records = given.cache / "detection"
    records.mkdir(parents=True, exist_ok=True)
    if given.data is not None:
        chosen = given.streams.split(";") if given.streams else list(real.STREAMS)
        detectors = given.peers.split(";") if given.peers else list(real.DETECTORS)
        for name in detectors:
            if name not in real.DETECTORS:
                parser.error(f"no detector {name!r} there; there are {'; '.join(real.DETECTORS)}")
        real.main(given.data, records, given.cache, chosen, detectors)
        return
    models = given.models.split(",")
    names = given.peers.split(";") if given.peers else [*ours.VARIANTS, *PEERS]
    for name in names:
        if name not in {*ours.VARIANTS, *PEERS}:
            parser.error(f"no peer {name!r}; there are {'; '.join([*ours.VARIANTS, *PEERS])}")
    if not given.report:
        for model in models:
            for name in names:
                run(name, model, given.runs, given.cache, records)
                print(f"{name} on {model}: runs {given.runs}", flush=True)
    rows = [
        report.row(report.OURS, records, models, tuned=False),
        report.row(report.MOVED, records, models),
    ]
    rows += [
        report.row(name, records, models, tuned=name not in ours.VARIANTS)
        for name in names
        if name != report.OURS
    ]
    kept = [r for r in rows if r is not None]
    lines = [c.name for c in cases.CASES if c.model in models]
    text = report.table(kept, lines) + "\n" + report.run_time_table(kept, models)
    print(text)
    for line in report.ahead(kept):
        print("ahead: " + line)
    if given.markdown:
        given.markdown.write_text(text)
    if given.svg:
        given.svg.write_text(report.svg(kept, lines))
    if given.json:
        write_json(given.json, report.as_json(kept))


if __name__ == "__main__":
    main()
