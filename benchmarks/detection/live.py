"""driftline as its users run it: `driftline fit`, `driftline replay`, and the alerts of the verdicts.

A row is an event, one every six seconds, so that a pane of a minute holds ten.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.common import WORKER_ENVIRONMENT
from driftline.schemas.units import iso_ms, parse_time_ms
from driftline.stream.alert.incident import Row, step
from driftline.stream.config.document import load
from driftline.stream.look import look_of
from driftline.stream.profiles import load as load_reference

Table = Mapping[str, Sequence[Any]]
_ROW_MS: Final = 6_000
_BEGIN_MS: Final = parse_time_ms("2026-01-01T00:00:00Z")
_REFUSED: Final = 2


@dataclass(frozen=True, slots=True)
class Told:
    """What a user is told. row: how many events had been seen. reason: as in the alert. news: the
    features that this alert names for the first time."""

    row: int
    reason: str
    news: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """refused: what `fit` said of the plain budget, where it refused it."""

    told: list[Told]
    refused: str | None
    caveats: list[str]
    estimate: list[Any]


def watch(
    reference: Table,
    stream: Table,
    kinds: Mapping[str, str],
    windows: Sequence[str],
    ert: int,
) -> Watched:
    """kinds: of the features. ert: events for each false alarm, or about so where that is refused."""
    config: dict[str, Any] = {
        "kafka": {"bootstrap.servers": "localhost:9092"},
        "input": {"topic": "events"},
        "model": "m",
        "reference": "./reference",
        "pane": "1m",
        "retention": "3650d",
        "windows": list(windows),
        "min_events": min(30, *(int(w.split()[0]) for w in windows)),
        "features": dict(kinds),
        "prediction": "off",
        "score": "off",
        "false_alarms": f"1 per {ert} events",
    }
    with tempfile.TemporaryDirectory(prefix="driftline-real-") as place:
        directory = Path(place)
        _write(directory / "reference.jsonl", reference, kinds)
        _write(directory / "events.jsonl", stream, kinds)
        path = directory / "driftline.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        refused = _run(directory, "fit", "--input", "reference.jsonl")
        if refused is not None:
            config["false_alarms"] = f"about {config['false_alarms']}"
            path.write_text(json.dumps(config), encoding="utf-8")
            again = _run(directory, "fit", "--input", "reference.jsonl")
            if again is not None:
                raise RuntimeError(again)
        budget = load_reference(load(path).models["m"].reference, "m").budget
        assert budget is not None
        [levels] = budget.units.values()
        replayed = _run(directory, "replay", "--input", "events.jsonl", "--out", "verdicts.jsonl")
        if replayed is not None:
            raise RuntimeError(replayed)
        with (directory / "verdicts.jsonl").open("rb") as lines:
            verdicts = [orjson.loads(line) for line in lines]
    if not any(v["status"] == "ok" for v in verdicts):
        raise RuntimeError("no test was made")
    estimate = [levels.estimate, levels.low, levels.high, levels.tail]
    return Watched(list(_told(verdicts, levels.rate)), refused, list(levels.caveats), estimate)


def _write(path: Path, table: Table, kinds: Mapping[str, str]) -> None:
    names = list(kinds)
    with path.open("w", encoding="utf-8") as file:
        for i, row in enumerate(zip(*(table[n] for n in names), strict=True)):
            event = {
                "id": f"e{i}",
                "ts": iso_ms(_BEGIN_MS + i * _ROW_MS),
                "model": "m",
                "features": dict(zip(names, row, strict=True)),
            }
            file.write(json.dumps(event) + "\n")


def _run(directory: Path, *arguments: str) -> str | None:
    """What a command said when it refused; None where it did not."""
    done = subprocess.run(
        [sys.executable, "-m", "driftline.stream.cli", *arguments],
        cwd=directory, env={**os.environ, **WORKER_ENVIRONMENT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, _REFUSED):
        raise RuntimeError(f"driftline {arguments[0]}: {done.stderr}")
    return " ".join(done.stderr.split()) if done.returncode else None


def _told(verdicts: Sequence[Mapping[str, Any]], rate: float) -> Iterator[Told]:
    """The messages of the alert stage that say something new, from the verdicts of one unit."""
    row: Row | None = None
    named: set[str] = set()
    for end, group in groupby(verdicts, key=lambda v: v["window"]["end"]):
        of_look = list(group)
        row, alert = step(row, of_look[-1], look_of(of_look, rate), 1)
        if alert is None or alert.reason not in ("drift", "features_joined", "severity_raised"):
            continue
        if alert.reason == "drift":
            named = set()
        names = [moved.feature for moved in alert.features]
        news = tuple(n for n in names if n not in named)
        named.update(names)
        yield Told((parse_time_ms(end) - _BEGIN_MS) // _ROW_MS, alert.reason, news)
