"""How long and how often to simulate a monitor, and how finely."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .run_length import Simulator

FEWEST_REPLICATES: Final = 200
# Run lengths are followed for so many times the budget, where that can be paid for.
_HORIZON: Final = 3.0
# Farthest that a budget may lie beyond what was simulated.
_FARTHEST: Final = 10.0
# What a coarser grain must leave: events in a pane, in the smallest window and, for each of a
# feature's categories, there and in the reference.
_FEWEST_IN_PANE: Final = 20
_FEWEST_IN_WINDOW: Final = 500
_PER_CLASS: Final = 20
_FEWEST_DRAWN: Final = 1_000
# Work that one calibration may cost, in counts looked at; about 1e9 a second.
_WORK: Final = 2.8e10


@dataclass(frozen=True, slots=True)
class Size:
    """How many panes to simulate, how often, and how many panes were wanted."""

    n_panes: int
    replicates: int
    wanted: int

    @property
    def in_reach(self) -> bool:
        return self.wanted <= _HORIZON * _FARTHEST * self.n_panes

    @property
    def farthest_panes(self) -> int:
        """The longest run time, in panes, that can be reached from what is simulated."""
        return int(_FARTHEST * self.n_panes)


def size_of(simulator: Simulator, ert_panes: float, most: int) -> Size:
    """How long and how often to simulate, from what it will cost; no clock, so repeatable."""
    n_features = len(simulator.profile.features) - len(simulator.rows.silent)
    per_pane = 12 * n_features * simulator.pane_events + sum(
        5 * n_features * simulator.numeric.bins // stride for stride in simulator.numeric.stride
    )
    events, looks = simulator.pane_events, len(simulator.looks)
    per_pane += len(simulator.spread.features) * (100 * events + 700 * looks)
    onset = simulator.onset
    together = simulator.profile.n_numeric if onset.together else 0
    per_pane += max(len(onset.alone), together) * 60 * events + 800 * len(onset.alone)
    per_pane += together * (300 + together)
    per_pane += 250 * simulator.categorical.onset_classes
    if simulator.slow:
        per_pane += 200_000 * len(simulator.looks) * n_features
    back = max(w.panes for w in simulator.looks)
    wanted = max(math.ceil(_HORIZON * ert_panes), back + 20)
    affordable = int(_WORK / per_pane / FEWEST_REPLICATES)
    n_panes = max(min(wanted, affordable), min(wanted, 2 * back))
    replicates = min(most, max(FEWEST_REPLICATES, int(_WORK / per_pane / n_panes)))
    return Size(n_panes, replicates, wanted)


def grains(simulator: Simulator) -> Iterator[int]:
    """Coarser and coarser grains: of how many events a simulated one may take the place.

    The laws of these tests depend on how many rows the reference has for an event of the window, and
    hardly on how many there are, as long as they are many: a hundredth of both says the same at a
    hundredth of the price. That takes rows that do not follow each other: of those that do, a
    hundredth would follow each other less.
    """
    rows = simulator.rows
    most_classes = max((len(f.categories) for f in rows.categorical), default=0)
    if rows.memory.block > 1 or rows.memory.period:
        return
    smallest = min(w.panes for w in simulator.looks)
    in_window = max(_FEWEST_IN_WINDOW, _PER_CLASS * most_classes)
    pane_events = max(_FEWEST_IN_PANE, math.ceil(in_window / smallest))
    largest = min(simulator.pane_events // pane_events, rows.n // max(_FEWEST_DRAWN, in_window))
    grain = 2
    while grain < largest:
        yield grain
        grain *= 2
    if largest > 1:
        yield largest
