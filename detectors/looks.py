"""What a simulated monitor looks at, and what it found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..schemas.units import EventWindow
from .base import Detector
from .profile import Profile
from .resample import Draw, Rows
from .windows import WindowSpec

# Counts held at a time: panes × features × bins.
CHUNK: Final = 4_000_000
FOREVER_MS: Final = 2**60


@dataclass(frozen=True, slots=True)
class Looks:
    """A window as the monitor moves it, in panes: looked at each `hop`-th pane; `full_only` where most
    detectors do not test it before it is full. spec: of one that moves so over the simulated panes."""

    spec: WindowSpec
    panes: int
    hop: int
    full_only: bool

    @staticmethod
    def of(spec: WindowSpec, pane_events: int, pane_ms: int, grain: int = 1) -> Looks:
        """pane_events: in a live pane; a simulated one holds one for each `grain` of them."""
        if isinstance(spec, EventWindow):
            panes = -(-spec.events // pane_events)
            if grain > 1:
                spec = EventWindow(panes * (pane_events // grain), spec.label)
            return Looks(spec, panes, 1, True)
        hop = max(1, (spec.hop_ms or pane_ms) // pane_ms)
        return Looks(spec, max(1, spec.size_ms // pane_ms), hop, False)

    def due(self, after: int, through: int, *, early: bool = False) -> npt.NDArray[np.int64]:
        """The panes at whose close it is tested, of those numbered after+1 … through. early: by
        a detector that does so before it is full."""
        first = max(after + 1, self.begins(early=early))
        return np.arange(-(-first // self.hop) * self.hop, through + 1, self.hop)

    def begins(self, *, early: bool) -> int:
        """The pane at whose close it may be tested first."""
        return self.panes if self.full_only and not early else 1


@dataclass(frozen=True, slots=True)
class Probe:
    """One test of the monitor: a detector, the index of its feature, the index of its window."""

    detector: Detector
    feature: int
    window: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a replicate's looks came to: (K,) pane, test and log p, in order of pane."""

    pane: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    log_p: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """The monitor that is simulated.

    n_reference: rows of each replicate's reference. index: (detector, feature, window) → number of
    the test. grain: of how many live events each simulated one takes the place.
    """

    profile: Profile
    rows: Rows
    n_reference: int
    looks: tuple[Looks, ...]
    index: Mapping[tuple[str, int, int], int]
    pane_events: int
    pane_ms: int
    min_events: int
    grain: int


class Found:
    """Collects looks, in any order."""

    def __init__(self) -> None:
        self.parts: list[tuple[Any, Any, Any]] = []

    def add(self, pane: Any, test: Any, log_p: Any) -> None:
        pane = np.asarray(pane, np.int64)
        self.parts.append((pane, np.broadcast_to(test, pane.shape), np.asarray(log_p, np.float64)))

    def seen(self) -> Seen:
        if not self.parts:
            return Seen(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        pane, test, log_p = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.argsort(pane, kind="stable")
        return Seen(pane[order], test[order], log_p[order])


@dataclass(frozen=True, slots=True, eq=False)
class Replicate:
    """One replicate under way: its draw, and the looks that count.

    screen: (tests,) log p above which a look is left out. bounds: all looks, by a bound on their
    p-values in place of these.
    """

    draw: Draw
    n_panes: int
    screen: npt.NDArray[np.float64]
    bounds: bool
    found: Found

    def keep(
        self,
        pane: npt.NDArray[np.int64],
        test: npt.NDArray[np.int64],
        log_p: npt.NDArray[np.float64],
    ) -> None:
        kept = log_p <= self.screen[test]
        self.found.add(pane[kept], test[kept], log_p[kept])

    def note(self, pane: npt.NDArray[np.int64], test: int, log_p: npt.NDArray[np.float64]) -> None:
        """Looks of one test, of which the p-values are exact: all where bounds are wanted."""
        if self.bounds:
            self.found.add(pane, test, log_p)
        else:
            self.keep(pane, np.full(len(pane), test), log_p)


def log(p: Any) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(p, np.float64), 1e-300))
