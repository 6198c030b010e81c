"""Decision levels that keep a budget of false alarms for a whole model.

The user says how many events may pass, on average, until an unchanged model raises its first false
alarm (the expected run time, ERT). `calibrate` simulates the monitor on null draws from the
reference rows and sets a level on the p-value of every (feature, detector, window).

The rule: **every test has the same rate of false alarms of its own.** A p-value is first mapped to
how often a full window of that test is seen with such a p-value or a smaller one, u; then one
number v, the same for all tests, is solved for: an alarm is u ≤ v. So a test that is conservative
(ties, few classes) is not held back by its p-values, and one whose p-values are too small (values
that follow each other) does not eat the budget of the others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ProfileError
from .base import Detector, before_full
from .levels import Calibration
from .looks import Probe, Seen
from .profile import Column, Profile
from .resample import Rows
from .run_length import Simulator
from .run_time import FEWEST_TAIL, Scales, Solved, runs_of, scales_of, solve
from .sizes import FEWEST_REPLICATES, Size, grains, size_of
from .support import (
    ABOUT_BLOCKS,
    MOST_EARLY,
    Terms,
    check_levels,
    check_rarity,
    check_rows,
    check_steady,
    too_few_blocks,
)
from .windows import WindowSpec

# Of values that follow each other a p-value means nothing by itself: also a tail of few looks says more.
_ABOUT_TAIL: Final = 2

_PILOT: Final = 24
# The pilot's quantiles are taken no lower than this; below, the tail's slope leads on.
_RARE: Final = 5e-3
# Looks are kept that are so many times likelier than if all tests alarmed one at a time.
_ABOVE: Final = 15.0
# How often to look at larger p-values where alarms come in longer runs than thought.
_ROUNDS: Final = 3
# One replicate of so many shows whether that is needed.
_FEW: Final = 5
_SPARE: Final = math.log(1.5)
# A p-value of 1 is no tail.
_LARGEST: Final = math.log(0.9)
# A log p below this stands for any: the smallest p-value that a float tells from 0 is about e^-708.
_LOWEST: Final = -600.0
# The smallest level there is.
_SMALLEST: Final = 5e-324


def calibrate(
    profile: Profile,
    columns: Mapping[str, Column],
    plan: Sequence[tuple[Detector, Sequence[int]]],
    windows: Sequence[WindowSpec],
    *,
    pane_events: int,
    ert_events: float,
    seed: int = 0,
    pane_ms: int = 60_000,
    min_events: int = 30,
    most_replicates: int = 500,
    about: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Levels for which an unchanged model runs `ert_events` events, on average, to its first alarm.

    A run begins with the stream: a window that is not filled yet cannot alarm, and that time
    counts. Each replicate draws its own reference and its own stream, as large as they are, since
    the reference is a sample too. Same input, same seed, same levels.

    Args:
        profile: what `fit` made of `columns`. columns: the reference rows, in the order in which
            they came. plan: (detector, indices of the features it tests), as the monitor runs it.
        windows: the windows. pane_events: events in a pane. pane_ms: length of a pane, for windows
            in time. min_events: as the monitor's; fewer values are not tested.
        most_replicates: pairs of reference and stream to simulate, where they can be paid for; fewer
            are quicker and leave more to chance. Of a few blocks more would tell no more than 200.
        about: where the reference cannot support the budget, set levels all the same and say in
            `caveats` why they are no promise.
        progress: called with the share done, 0 … 1; begins anew if a round must be repeated.

    Raises:
        ProfileError: the reference cannot support the budget, or no levels can keep it.
        ValueError: an argument is out of its range.

    Source: Cobb, Van Looveren & Klaise (2022) for calibration by simulated run times; Hill (1975)
    for the tails; Efron (1981) for the bootstrap of censored times.
    """
    if pane_events < 1 or not windows or not any(features for _, features in plan):
        raise ValueError(
            f"pane_events is {pane_events}, with {len(windows)} windows: at least one event in a "
            "pane, one window and one feature to test are needed"
        )
    terms = Terms(about)
    rows = Rows.of(profile, columns, fewest_blocks=ABOUT_BLOCKS if about else 1)
    # Tests of what never varies in the reference take no part of the simulated alarms.
    silent = rows.silent
    n_heard = len(windows) * sum(i not in silent for _, features in plan for i in features)

    def rare() -> float:
        return min(0.02, max(1e-4, _ABOVE * pane_events / (ert_events * max(1, n_heard))))

    wanted = rare()

    def simulator_of(grain: int) -> Simulator:
        return Simulator(
            profile,
            rows,
            plan,
            windows,
            pane_events=pane_events,
            pane_ms=pane_ms,
            min_events=min_events,
            seed=seed,
            grain=grain,
            rare=wanted < _RARE,
            certain=too_few_blocks(rows),
        )

    simulator = simulator_of(1)
    begins = [
        simulator.looks[t.window].begins(early=before_full(t.detector)) for t in simulator.tests
    ]
    filled = min(begins) * pane_events
    check_rows(terms, rows, ert_events, filled)
    say = progress or (lambda share: None)
    if not n_heard:
        say(1.0)
        return _bounded(simulator, windows, ert_events, pane_events, terms.caveats)
    few = too_few_blocks(rows)
    most = min(most_replicates, FEWEST_REPLICATES) if few else most_replicates
    size = size_of(simulator, ert_events / pane_events, most)
    for grain in grains(simulator):
        if size.n_panes >= size.wanted:
            break
        simulator = simulator_of(grain)
        size = size_of(simulator, ert_events / pane_events, most)
    ert_events = check_rarity(terms, simulator, size, ert_events, pane_events)
    wanted = rare()
    fewest = _ABOUT_TAIL if few else FEWEST_TAIL
    done = 0.0

    def solve_of(
        seen: Sequence[Seen], *, spare: float, highest: bool
    ) -> tuple[Scales, Solved | None]:
        tail = math.ceil(fewest * len(seen) / size.replicates)
        found = scales_of(simulator.tests, simulator.looks, seen, screen, size.n_panes, tail)
        runs = runs_of(seen, found, size.n_panes, pane_events)
        result = solve(runs, ert_events, found.ceiling - spare, MOST_EARLY)
        if result is None and highest:
            # Tests of which less was noted keep to that, and have a smaller part than the others.
            result = solve(runs, ert_events, found.highest, MOST_EARLY)
        return found, result

    scales = solved = None
    for attempt in range(_ROUNDS):
        last = attempt == _ROUNDS - 1
        screen = _screen(simulator, size, wanted)
        if not about:
            # Refused at once, and not after minutes.
            check_levels(terms, simulator, _silenced(simulator, screen))
        if scales is not None:
            # A pilot of bounds may have taken a test's p-values for smaller than they turned out.
            screen = np.maximum(screen, np.minimum(scales.log_level(wanted), _LARGEST))
        seen: list[Seen] = []
        # A few tell mostly whether all will do: at least where that is not a close thing.
        for enough, spare in ((size.replicates // _FEW, _SPARE), (size.replicates, 0.0)):
            for r in range(len(seen), enough):
                seen.append(simulator.run(r, size.n_panes, screen))
                # Where it has to begin again, what was said stays said.
                done = max(done, (r + 1) / size.replicates)
                say(done)
            scales, solved = solve_of(seen, spare=spare, highest=last)
            if solved is None and not last:
                break
        if solved is not None:
            break
        # Alarms come in longer runs than thought: look at larger p-values, too.
        wanted = min(1.0, wanted * 5)
    if solved is None or scales is None:
        raise ProfileError(
            f"no levels give one false alarm per {ert_events:,.0f} events: even with levels near 1 "
            f"the first alarm comes later; ask for a longer time, or for smaller windows or panes"
        )
    rate = math.exp(solved.log_rate)
    check_levels(terms, simulator, _silenced(simulator, scales.log_level(rate)))
    check_steady(terms, simulator, solved, ert_events)
    levels = {
        (profile.name_of(t.feature), t.detector.name, windows[t.window].label): max(
            level, _SMALLEST if terms.caveats else 0.0
        )
        for t, level in zip(simulator.tests, scales.levels(rate), strict=True)
    }
    return Calibration(
        levels=levels,
        ert_events=float(ert_events),
        estimate=solved.estimate,
        low=solved.low,
        high=solved.high,
        early=solved.early,
        rate=rate,
        events=size.replicates * size.n_panes * simulator.pane_events,
        replicates=size.replicates,
        horizon=size.n_panes * pane_events,
        pane_events=pane_events,
        grain=simulator.grain,
        rows=rows.n,
        correlation_time=rows.memory.time,
        block=rows.memory.block,
        period=rows.memory.period,
        nominal=scales.nominal,
        tail=solved.tail,
        seed=seed,
        profile=profile.id,
        caveats=tuple(terms.caveats),
    )


def _bounded(
    simulator: Simulator,
    windows: Sequence[WindowSpec],
    ert_events: float,
    pane_events: int,
    caveats: Sequence[str],
) -> Calibration:
    """Levels where the reference never varies, so that no null draw can alarm: the budget shared
    out among all looks until then, which keeps it as far as each p-value is valid."""
    profile, rows = simulator.profile, simulator.rows
    rate = pane_events / (ert_events * len(simulator.tests))
    return Calibration(
        levels={
            (profile.name_of(t.feature), t.detector.name, windows[t.window].label): rate
            for t in simulator.tests
        },
        ert_events=float(ert_events),
        estimate=float(ert_events),
        low=float(ert_events),
        high=float(ert_events),
        early=0.0,
        rate=rate,
        events=0,
        replicates=0,
        horizon=0,
        pane_events=pane_events,
        grain=1,
        rows=rows.n,
        correlation_time=rows.memory.time,
        block=rows.memory.block,
        period=rows.memory.period,
        nominal=len(simulator.tests),
        tail="bound",
        seed=simulator.seed,
        profile=profile.id,
        caveats=tuple(caveats),
    )


def _silenced(simulator: Simulator, log_p: npt.NDArray[np.float64]) -> list[Probe]:
    """The tests that no level can keep quiet: floats hold none so small."""
    smallest = math.log(sys.float_info.min)
    return [t for t, level in zip(simulator.tests, log_p, strict=True) if level < smallest]


def _screen(simulator: Simulator, size: Size, wanted: float) -> npt.NDArray[np.float64]:
    """(tests,) log p that about the share `wanted` of full looks falls below, from a pilot; of a test
    that is to have no part, minus infinity."""
    n_panes = min(size.n_panes, max(w.panes for w in simulator.looks) + 400)
    everything = np.zeros(len(simulator.tests))
    found: list[Seen] = [
        simulator.run(10_000_000 + r, n_panes, everything, bounds=True) for r in range(_PILOT)
    ]
    test = np.concatenate([s.test for s in found])
    log_p = np.concatenate([s.log_p for s in found])
    pane = np.concatenate([s.pane for s in found])
    screen = np.full(len(simulator.tests), math.log(wanted))
    for t, probe in enumerate(simulator.tests):
        own = log_p[(test == t) & (pane >= simulator.looks[probe.window].panes)]
        if len(own):
            start = np.quantile(own, max(wanted, _RARE), method="higher")
            if start < _LOWEST:
                screen[t] = -math.inf
                continue
            depth = (start - own[own <= start]).mean()
            beyond = math.log(min(1.0, wanted / _RARE))
            screen[t] = start + beyond * min(10.0, max(1.0, float(depth)))
    return np.minimum(screen, _LARGEST)
