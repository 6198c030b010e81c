"""Which reference is in force when: `history.json`, beside the first one.

    reference/
        profile.json, profile.safetensors     the first, as `driftline fit` wrote it
        history.json                          there once another one was promoted
        <id>/profile.json, …                  each that was promoted, under its id

A switch is a point in event time, written down before any event that lies behind it is summarised.
So an event is compared with the same reference whoever reads it, and whenever.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
import orjson
from fsspec.implementations.local import LocalFileSystem

from ...schemas.errors import ProfileError
from ...schemas.units import iso_ms, parse_time_ms

FORMAT: Final = 1
FILE: Final = "history.json"


@dataclass(frozen=True, slots=True)
class Era:
    """When a reference is in force, in event time, epoch milliseconds; None is no bound.

    since_ms: its panes begin here. from_ms: the windows that end after this are tested against it;
    later than `since_ms` where its panes begin early, so that its windows are full by then.
    until_ms: its panes end here, and its windows at the latest.
    """

    since_ms: int | None = None
    from_ms: int | None = None
    until_ms: int | None = None

    @property
    def always(self) -> bool:
        return self.since_ms is None and self.until_ms is None

    def holds(self, start_ms: int) -> bool:
        """Whether a pane that begins at `start_ms` is made against it."""
        after = self.since_ms is None or start_ms >= self.since_ms
        return after and (self.until_ms is None or start_ms < self.until_ms)

    def tests(self, end_ms: int) -> bool:
        """Whether a window that ends at `end_ms` is tested against it."""
        after = self.from_ms is None or end_ms > self.from_ms
        return after and (self.until_ms is None or end_ms <= self.until_ms)

    def events(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Which of the events at `times_ms` go into its panes."""
        held = np.ones(len(times_ms), np.bool_)
        if self.since_ms is not None:
            held &= times_ms >= self.since_ms
        if self.until_ms is not None:
            held &= times_ms < self.until_ms
        return np.flatnonzero(held)


@dataclass(frozen=True, slots=True)
class Entry:
    """A reference in a history. place: its directory, relative to the first; "" for the first.

    since_ms, from_ms: see `Era`; None for the first.
    """

    id: str
    place: str = ""
    since_ms: int | None = None
    from_ms: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "place": self.place,
            "since": None if self.since_ms is None else iso_ms(self.since_ms),
            "from": None if self.from_ms is None else iso_ms(self.from_ms),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Entry:
        return Entry(
            str(data["id"]),
            str(data["place"]),
            None if data["since"] is None else parse_time_ms(data["since"]),
            None if data["from"] is None else parse_time_ms(data["from"]),
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """A promotion under way: nothing at or after `since_ms` may be summarised before it has ended.

    token: of the command that began it.
    """

    id: str
    since_ms: int
    token: str

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "since": iso_ms(self.since_ms), "token": self.token}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Pending:
        return Pending(str(data["id"]), parse_time_ms(data["since"]), str(data["token"]))


@dataclass(frozen=True, slots=True)
class History:
    """entries: the first reference, and those promoted, in order of time."""

    entries: tuple[Entry, ...]
    pending: Pending | None = None

    def eras(self) -> Sequence[Era]:
        """The era of each entry: it ends where the next one takes over."""
        ends = [*(e.from_ms for e in self.entries[1:]), None]
        return [Era(e.since_ms, e.from_ms, end) for e, end in zip(self.entries, ends, strict=True)]


def place_of(url: str, place: str) -> str:
    """Directory or URL of an entry of the history at `url`."""
    return f"{url.rstrip('/')}/{place}" if place else url


def read(url: str) -> History | None:
    """The history at a reference's place, None where nothing was ever promoted.

    Raises:
        ProfileError: it cannot be read, or is none.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
        raw = fs.cat_file(f"{path}/{FILE}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ImportError) as error:
        raise ProfileError(
            f"cannot read the reference profile at {url!r}: {FILE}: {error}",
            retry=isinstance(error, OSError),
        ) from error
    try:
        data = orjson.loads(raw)
        if data["format"] != FORMAT:
            raise ProfileError(
                f"{FILE} of {url!r} is of format {data['format']!r}, and this version reads "
                f"{FORMAT}; run the version of driftline that wrote it"
            )
        entries = tuple(map(Entry.from_json, data["entries"]))
        pending = data["pending"]
        found = History(entries, None if pending is None else Pending.from_json(pending))
        starts = [e.from_ms for e in entries]
        later = [ms for ms in starts[1:] if ms is not None]
        whole = bool(entries) and starts[0] is None and len(later) == len(starts) - 1
        if not whole or any(b <= a for a, b in pairwise(later)):
            raise ValueError("its entries are not in order of time")
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"{FILE} of {url!r} is damaged ({type(error).__name__}: {error}); restore it, or fit "
            "to a new place and name that in `reference`"
        ) from error


def write(url: str, history: History) -> None:
    """Replace the history at once: whoever reads it finds the old one or the new one.

    Raises:
        ProfileError: the place cannot be written to.
    """
    data = {
        "format": FORMAT,
        "entries": [e.to_json() for e in history.entries],
        "pending": None if history.pending is None else history.pending.to_json(),
    }
    raw = orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n"
    try:
        fs, path = fsspec.core.url_to_fs(url)
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(f"{path}/{FILE}", raw)  # object stores replace whole objects
            return
        handle, scratch = tempfile.mkstemp(prefix=".history-", dir=path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)
            os.replace(scratch, f"{path}/{FILE}")
        except BaseException:
            os.unlink(scratch)
            raise
    except (OSError, ValueError, ImportError) as error:
        raise ProfileError(f"cannot write {FILE} to {url!r}: {error}") from error
