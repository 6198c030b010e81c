"""What a reference can support: refused with the reason and the remedy, or with `about` a caveat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..schemas.errors import ProfileError
from .looks import Probe
from .memory import BLOCKS_PER_TIME, FEWEST_PERIODS
from .resample import Rows
from .run_length import Simulator
from .run_time import Solved
from .sizes import Size

# Fewer rows than this say too little about how the features depend on each other.
FEWEST_ROWS: Final = 200
# Events of a budget per independent row of a reference whose rows follow each other. Beyond it what
# decides is runs so rare that the reference has hardly an example of them.
EVENTS_PER_ROW: Final = 25
# Share of references that may alarm within a tenth of the budget; 0.095 without memory.
MOST_EARLY: Final = 0.25
# Fewer blocks than this, and how far means wander would be known to no better than a quarter.
FEWEST_BLOCKS: Final = 20
# With `about`: fewer rows are refused even so, and of fewer blocks shorter ones are made. Of ten, the
# standard deviation of means is known to some 18 %; what shorter blocks lose is put back.
_ABOUT_ROWS: Final = 30
ABOUT_BLOCKS: Final = 10
# Features that a sentence names.
_NAMED: Final = 4


@dataclass(slots=True)
class Terms:
    """What the reference cannot support: refused, or with `about` a caveat."""

    about: bool
    caveats: list[str] = field(default_factory=list)

    def object(self, problem: str, remedy: str, caveat: str) -> None:
        if not self.about:
            raise ProfileError(
                f"{problem}: {remedy}; or write `about` before the budget, which sets levels for it "
                "without the promise"
            )
        if (said := f"{problem}: {caveat}") not in self.caveats:
            self.caveats.append(said)


def too_few_blocks(rows: Rows) -> bool:
    memory = rows.memory
    return memory.block > 1 and rows.n < FEWEST_BLOCKS * min(memory.whole_block, rows.n)


def _which(rows: Rows) -> str:
    """The features of which there are too few blocks, those that follow themselves longest first."""
    names = [f.name for f in (*rows.numeric, *rows.categorical)]
    times = [max((a.time for a in own), default=1.0) for own in rows.memory.found]
    found = sorted(
        (-t, name)
        for t, name in zip(times, names, strict=True)
        if rows.n < FEWEST_BLOCKS * math.ceil(BLOCKS_PER_TIME * t)
    )
    said = ", ".join(f"{name!r} over {-t:,.0f}" for t, name in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    enough = len(names) - len(found)
    return said + more + (f"; enough for {enough} of {len(names)} features" if enough else "")


def check_rows(terms: Terms, rows: Rows, ert_events: float, filled: int) -> None:
    supported = EVENTS_PER_ROW * rows.n_effective
    if not ert_events > 2 * filled:
        raise ProfileError(
            f"one false alarm per {ert_events:,.0f} events cannot be kept apart from the start: "
            f"the smallest window is tested after {filled:,} events, and the time asked for must "
            f"be more than twice that; ask for a longer time, or add a smaller window"
        )
    if rows.n < FEWEST_ROWS:
        few = f"{rows.n:,} reference rows cannot be calibrated with; at least {FEWEST_ROWS} are needed"
        if rows.n < _ABOUT_ROWS:
            raise ProfileError(f"{few}: fit on more rows")
        terms.object(few, "fit on more rows", "what features have in common is hardly known")
    memory = rows.memory
    whole = min(memory.whole_block, rows.n)
    if too_few_blocks(rows):
        terms.object(
            f"{rows.n:,} rows whose values follow each other over some {memory.time:,.0f} rows make "
            f"{rows.n // whole} blocks of {whole:,}, and {FEWEST_BLOCKS} are needed to "
            f"tell how far they wander ({_which(rows)})",
            f"fit on {FEWEST_BLOCKS * whole:,} rows or more; where "
            f"it is a cycle (a day), on {FEWEST_PERIODS} whole ones at least, or it is not seen as one",
            f"levels are from blocks of {memory.block:,}, and where it is a trend or a season, false "
            "alarms come more often as soon as it leads beyond these rows",
        )
    if memory.block > 1 and ert_events > supported:
        need = math.ceil(ert_events / EVENTS_PER_ROW * memory.time)
        terms.object(
            f"{rows.n:,} rows that follow each other (they carry the information of "
            f"{rows.n_effective:,}) support at most 1 false alarm per {supported:,} events; 1 per "
            f"{ert_events:,.0f} was asked for",
            f"fit on {need:,} rows or more, or ask for more alarms",
            "such rare runs of values are hardly in these rows, and their levels are a guess",
        )


def check_rarity(
    terms: Terms, simulator: Simulator, size: Size, ert_events: float, pane_events: int
) -> float:
    """The budget that levels are set for."""
    if size.in_reach:
        return ert_events
    rarest = size.farthest_panes * pane_events
    terms.object(
        f"1 false alarm per {ert_events:,.0f} events is too rare to simulate with "
        f"{len(simulator.profile.features)} features; at most 1 per {rarest:,} events",
        "ask for more alarms, or use longer panes",
        f"levels are for 1 per {rarest:,}",
    )
    return float(rarest)


def check_steady(terms: Terms, simulator: Simulator, solved: Solved, ert_events: float) -> None:
    """An average run time that some references reach by never alarming and others miss at once is
    no promise to whoever has one reference."""
    if solved.early <= MOST_EARLY:
        return
    largest = max(simulator.looks, key=lambda w: w.panes)
    events = largest.panes * simulator.pane_events * simulator.grain
    supported = "no budget"
    if solved.steady > 0:
        supported = f"at most 1 false alarm per {solved.steady:,.0f} events"
    terms.object(
        f"{simulator.rows.n:,} rows beside windows of {events:,} events ({largest.spec.label}) support "
        f"{supported}; of 1 per {ert_events:,.0f}, {solved.early:.0%} of such references would "
        "alarm within a tenth (10 % by chance alone)",
        "fit on more rows, use smaller windows, or ask for more alarms",
        "the budget is an average of references that hardly alarm and references that alarm at once",
    )


def check_levels(terms: Terms, simulator: Simulator, silenced: Sequence[Probe]) -> None:
    """silenced: the tests that no level can keep quiet."""
    period = simulator.rows.memory.period
    remedy = "leave the features out, or use shorter windows"
    if period:
        remedy = f"use windows of whole cycles (of {period:,.0f} events), or leave the features out"
    for detector in dict.fromkeys(probe.detector.name for probe in silenced):
        windows: dict[str, list[str]] = {}
        for probe in silenced:
            if probe.detector.name == detector:
                label = simulator.looks[probe.window].spec.label
                windows.setdefault(repr(simulator.profile.name_of(probe.feature)), []).append(label)
        named = [
            name if len(of) == len(simulator.looks) else f"{name} in windows of {', '.join(of)}"
            for name, of in windows.items()
        ]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        terms.object(
            f"windows differ so much by themselves that the p-values of {detector} cannot be told "
            f"from 0, and no level can keep them quiet: {'; '.join(named[:_NAMED])}{more}",
            remedy,
            "it alarms there only where the p-value is 0 to a computer, and the budget leaves it out",
        )
