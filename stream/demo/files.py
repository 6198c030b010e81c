"""What the demo leaves in its folder: a commented driftline.yaml, the reference, some events."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.errors import DriftlineError
from ..config.document import Config, load
from ..fit import collect, fit_rows
from ..profiles import Reference, save
from .flights import FEBRUARY_MS, MODEL, PACKAGE, DelayModel, Year, events

INPUT_TOPIC: Final = "flights"
INPUT_PARTITIONS: Final = 2
CONFIG: Final = "driftline.yaml"
JANUARY: Final = "january.jsonl.gz"
FEBRUARY: Final = "february.jsonl.gz"
LOG: Final = "driftline.log"

MARK: Final = "# Written by `driftline demo`, and written anew by the next one in this folder."
_MARCH_MS: Final = FEBRUARY_MS + 28 * 86_400_000

_TEXT: Final = """\
{mark}

kafka:
  # The demo's own broker. It is gone when the demo ends; put your own here.
  bootstrap.servers: {servers}

# The model says how likely a flight is to leave 15 minutes late or more. It was fitted on January.
model: {model}
input: {{topic: {topic}}}
# Made from January's events; again with
#   driftline fit --config {CONFIG} --input {JANUARY}
reference: ./reference

# Event time is the scheduled departure. Events are summarised by days of it, UTC.
pane: 1d
# An event is sent when the aircraft leaves, so it is as late as its flight: up to 19 hours in 2013.
allowed_lateness: 24h
# A partition without events for so long, by the clock on the wall, is not waited for.
idle_after: 30s

# Windows are tested whenever a pane closes. They hold whole days, since they would else find the
# rhythm of the day: with `pane: 1h`, 20,000 events begin and end at any hour, and `hour` drifts.
windows: [1d, 7d, 20000 events]
# How long panes are kept: 20,000 events are 25 days in February.
retention: 35d

features:
  carrier: categorical
  origin: categorical
  dest: categorical
  hour: numeric             # of the scheduled departure, local
  distance: numeric         # miles
  temp: numeric             # °F, at the origin in that hour, like all weather here
  wind_speed: numeric       # mph
  visibility: numeric       # miles
  precip: numeric           # inches
score: numeric              # the probability
prediction: categorical     # late, on time

detectors: {{numeric: [ks, missing_rate], categorical: [chi_squared]}}
# One look at the whole model says "drift" for nothing once in 10,000, if flights are independent of
# each other. They share their weather, and a day's weather is never a month's: so temp, wind_speed
# and visibility differ on most days, and truly. How much, the severity of an alert says: critical
# is one standard deviation, or a quarter of all flights.
alpha: 0.0001

# An alert is over after so many quiet looks in a row of each window that had fired.
# One alert per feature, so that the page can tell what each of them does; the default is one of the
# whole model that lists them.
alerts: {{resolve_after: 3, group_by: feature}}

topics: {{partitions: 2}}
# Each airport on its own: uncomment, and fit the reference again.
# segment_by: [origin]
"""


@dataclass(frozen=True, slots=True)
class Files:
    """What was written: the configuration, read back, and the reference of January."""

    config: Config
    reference: Reference


def check(directory: Path) -> None:
    """Whether the demo may write into a folder: a driftline.yaml of the user's is never replaced.

    Raises DriftlineError: it may not, or cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = (directory / CONFIG).read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DriftlineError(
            f"{directory}: the demo cannot leave its files there ({error.strerror});"
            " choose another folder with --directory"
        ) from error
    if not text.startswith(MARK.encode()):
        raise DriftlineError(
            f"{directory / CONFIG} was not written by the demo, which would replace it;"
            " choose another folder with --directory, or move the file"
        )


def write(directory: Path, servers: str, january: Sequence[bytes]) -> Files:
    """Write everything but February's events.

    january: values of the reference events.
    """
    _write_events(directory / JANUARY, january)
    text = _TEXT.format(
        mark=MARK, servers=servers, model=MODEL, topic=INPUT_TOPIC, CONFIG=CONFIG, JANUARY=JANUARY
    )
    (directory / CONFIG).write_text(text, encoding="utf-8")
    config = load(directory / CONFIG)
    model = config.models[MODEL]
    fitted = fit_rows(collect(model, january), {"file": JANUARY, "package": PACKAGE})
    save(fitted.reference, model.reference)
    return Files(config, fitted.reference)


def write_february(directory: Path, year: Year, model: DelayModel) -> None:
    """Write the stream's first month, for a replay when the broker is gone."""
    february = year.rest.where(year.rest.ts_ms < _MARCH_MS)
    _write_events(directory / FEBRUARY, (event.value for event in events(february, model)))


def _write_events(path: Path, values: Iterable[bytes]) -> None:
    # mtime=0: the same events are the same bytes.
    with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as file:
        for value in values:
            file.write(value + b"\n")
