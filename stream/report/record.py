"""What a page needs of a replay, gathered while it runs, in bounded space.

Time is cut into slices of one length, at most `SLICES` of them from the first to the last: when
there are more, the length doubles and neighbours are added up. So a day and a year cost the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ...detectors.numeric import BEYOND, FIXED_POINT_BITS, SUM
from ...detectors.panes import Pane, merge_names
from ...detectors.profile import Profile
from ...schemas.units import parse_time_ms
from ...schemas.verdict import unit_key
from ..config.document import Config
from ..look import part_of
from ..profiles import Reference
from ..reference.history import Era
from .bins import Counts, ProfileBins
from .episodes import Episodes, Parsed, strength

SLICES: Final = 300

T = TypeVar("T")
Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Look:
    """The looks of one test that ended in one slice: how many, how many drifted, and of the one
    with the smallest p-value (else the largest statistic): statistic, p, level, effect.

    strength: see `episodes.strength`. value: the effect as in the verdict.
    """

    n: int
    drifted: int
    statistic: float | None
    p: float | None
    strength: float
    value: float | None

    def add(self, other: Look) -> None:
        self.n += other.n
        self.drifted += other.drifted
        if other.before(self):
            self.statistic, self.p = other.statistic, other.p
            self.strength, self.value = other.strength, other.value

    def before(self, other: Look) -> bool:
        if self.p is not None and other.p is not None:
            return (self.p, -abs(self.strength)) < (other.p, -abs(other.strength))
        return (self.statistic or 0.0) > (other.statistic or 0.0)


class Slices:
    """The clock of a record: slice number → time, coarser as the range grows."""

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self.first: int | None = None
        self.last: int | None = None
        self._coarsen: list[Callable[[], None]] = []

    def number(self, ms: int) -> int:
        """The slice in which an instant lies. May make all slices longer."""
        at = ms // self.length_ms
        if self.first is None or self.last is None:
            self.first = self.last = at
        self.first, self.last = min(self.first, at), max(self.last, at)
        while self.last - self.first >= SLICES:
            self.length_ms *= 2
            self.first, self.last, at = self.first // 2, self.last // 2, at // 2
            for coarsen in self._coarsen:
                coarsen()
        return at

    def each(self, coarsen: Callable[[], None]) -> None:
        """Have `coarsen` called when slices 2k and 2k + 1 become slice k."""
        self._coarsen.append(coarsen)

    @property
    def n(self) -> int:
        return 0 if self.first is None or self.last is None else self.last - self.first + 1


def _halved(by_slice: dict[int, T], add: Callable[[T, T], T]) -> dict[int, T]:
    halved: dict[int, T] = {}
    for at, value in by_slice.items():
        held = halved.get(at // 2)
        halved[at // 2] = value if held is None else add(held, value)
    return halved


@dataclass(slots=True)
class Series:
    """One test of one feature over time. level: as in the verdicts, on p or on the statistic."""

    by_p: bool
    level: float
    looks: dict[int, Look] = field(default_factory=dict)

    def halve(self) -> None:
        def add(a: Look, b: Look) -> Look:
            a.add(b)
            return a

        self.looks = _halved(self.looks, add)


@dataclass(slots=True, eq=False)
class Part:
    """Some panes in one: counts per bin; sums, low and high as in panes."""

    counts: Counts
    sums: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    def __add__(self, other: Part) -> Part:
        return Part(
            self.counts + other.counts,
            self.sums + other.sums,
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
        )


class UnitRecord:
    """What came of one unit: its distributions, and for a unit in full also over time.

    total: of the range. by_slice: slice → of that time. unseen: as in panes.
    series: (feature, detector, window, earlier part of the stream that it is compared with or "")
    → over time.
    """

    def __init__(self, profile: Profile, full: bool) -> None:
        self.profile = profile
        self.bins = ProfileBins(profile)
        self.full = full
        self.events = 0
        nothing = np.full(profile.n_numeric, np.nan)
        self.total = Part(
            np.zeros(self.bins.n, np.int64),
            np.zeros((profile.n_numeric, 3), np.int64),
            nothing,
            nothing,
        )
        self.by_slice: dict[int, Part] = {}
        self.unseen: dict[int, dict[str, int]] = {}
        self.series: dict[Key, Series] = {}

    def halve(self) -> None:
        self.by_slice = _halved(self.by_slice, lambda a, b: a + b)
        for series in self.series.values():
            series.halve()

    def between(self, slices: Slices, start_ms: int, end_ms: int) -> Counts:
        """Counts of the slices that overlap [start, end)."""
        first, last = start_ms // slices.length_ms, (end_ms - 1) // slices.length_ms
        found = np.zeros(self.bins.n, np.int64)
        for at, part in self.by_slice.items():
            if first <= at <= last:
                found += part.counts
        return found

    def counts(self, part: Part, index: int) -> Counts:
        """A part's counts of one feature, per bin."""
        return self.bins.of(part.counts, index)

    def mean(self, part: Part, index: int) -> float | None:
        """Mean of a numeric feature in a part, None without values."""
        f, b = self.profile.numeric[index], self.bins.features[index]
        n = int(self.counts(part, index)[: b.n_finite].sum()) - int(part.sums[index, BEYOND])
        if n <= 0:
            return None
        return f.mean + f.sd * (int(part.sums[index, SUM]) / (1 << FIXED_POINT_BITS) / n)


class Record:
    """Give it closed panes (`pane`) and verdicts (`verdict`).

    full: keys of the units to be recorded over time; the others are counted only. None: the whole
    of each model.
    """

    def __init__(
        self,
        config: Config,
        references: Mapping[str, Reference],
        full: Collection[str] | None = None,
    ) -> None:
        self.config = config
        self.references = references
        self.slices = Slices(min(m.pane_ms for m in config.models.values()))
        self.episodes = Episodes(config.alerts.resolve_after)
        self.units: dict[str, UnitRecord] = {}
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._full = set((unit_key(m, {}) for m in config.models) if full is None else full)
        self._eras: dict[str, list[tuple[Era, Profile]]] = {}
        self._pane_ms: dict[str, int] = {}
        for name, first in references.items():
            for one in first.eras:
                for key, (_, profile) in one.units.items():
                    self._eras.setdefault(key, []).append((one.era, profile))
                    self._pane_ms[key] = config.models[name].pane_ms
        self.slices.each(self._halve)

    def pane(self, unit: str, pane: Pane) -> None:
        """A pane that closed."""
        end_ms = pane.start_ms + self._pane_ms[unit]
        record = self._unit(unit, end_ms)
        self.first_ms = (
            pane.start_ms if self.first_ms is None else min(self.first_ms, pane.start_ms)
        )
        self.last_ms = end_ms if self.last_ms is None else max(self.last_ms, end_ms)
        counts = record.bins.count(pane.cells, pane.counts)
        part = Part(counts, pane.sums, pane.low, pane.high)
        record.events += pane.events
        record.total += part
        for feature, names in pane.unseen.items():
            record.unseen[feature] = merge_names([record.unseen.get(feature, {}), names])
        if record.full:
            at = self.slices.number(pane.start_ms)
            held = record.by_slice.get(at)
            record.by_slice[at] = part if held is None else held + part

    def verdict(self, unit: str, verdict: Parsed) -> None:
        """A verdict, as its JSON."""
        self.episodes.add(unit, verdict)
        record = self._unit(unit, parse_time_ms(verdict["window"]["end"]))
        if not record.full or verdict["status"] != "ok":
            return
        size = verdict["window"]["size"]
        key = (verdict["feature"], verdict["detector"], size, part_of(verdict))
        series = record.series.get(key)
        if series is None:
            by_p = verdict.get("alpha") is not None
            level: Any = verdict["alpha"] if by_p else verdict["threshold"]
            series = record.series[key] = Series(by_p, float(level))
        # A window that ends with a slice belongs to it.
        at = self.slices.number(parse_time_ms(verdict["window"]["end"]) - 1)
        effect = verdict["effect"]
        look = Look(
            1,
            int(verdict["drifted"]),
            verdict["statistic"],
            verdict["p_value"],
            strength(verdict),
            None if effect is None else effect["value"],
        )
        held = series.looks.get(at)
        if held is None:
            series.looks[at] = look
        else:
            held.add(look)

    def reference(self, model: str) -> Reference:
        """The reference that the model's distributions are compared with."""
        eras = self.references[model].eras
        unit = self.units.get(unit_key(model, {}))
        return next((r for r in eras if unit is not None and r.whole is unit.profile), eras[-1])

    def _unit(self, key: str, end_ms: int) -> UnitRecord:
        """The record of a unit. Where another reference takes over, its distributions begin anew:
        their bins are the reference's."""
        profile = next((p for era, p in self._eras[key] if era.tests(end_ms)), None)
        record = self.units.get(key)
        if profile is None:
            profile = record.profile if record is not None else self._eras[key][-1][1]
        if record is None or record.profile is not profile:
            before = record
            record = self.units[key] = UnitRecord(profile, key in self._full)
            if before is not None:
                record.series, record.events = before.series, before.events
        return record

    def _halve(self) -> None:
        for record in self.units.values():
            record.halve()
