"""Stretches of the stream with drift in them, looked at as any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from .evidence import Span, Trial
from .inject import INJECTIONS, drawn, injected
from .looks import look
from .store import Kept
from .task import Progress, Task, lookers_of, plan_for, units_of

# Places at which drift is put in.
ONSETS: Final = 3
# The time there is to see it, in lengths of the longest window.
HORIZON: Final = 2.0


def onsets_of(span: Span, pane_ms: int, back_ms: int, longest_ms: int) -> tuple[list[int], int]:
    """Where drift is put in, evenly over the quiet part, and how much time there is to see it.

    Windows are full before, where that is possible, and the time after it is quiet.
    """
    horizon = int(HORIZON * longest_ms) // pane_ms * pane_ms
    parts = [(max(a, span.start_ms + back_ms), b) for a, b in span.quiet]
    if not any(b > a for a, b in parts):
        parts = list(span.quiet)
    longest = max((b - a for a, b in parts), default=0)
    horizon = min(horizon, longest // 2 // pane_ms * pane_ms)
    room = [(a, b - horizon - a) for a, b in parts if b - horizon - a > 0]
    if horizon < 2 * pane_ms or not room:
        return [], horizon
    total = sum(length for _, length in room)
    onsets = []
    for k in range(ONSETS):
        at = int(total * (2 * k + 1) / (2 * ONSETS))
        for a, length in room:
            if at < length:
                onsets.append(-(-(a + at) // pane_ms) * pane_ms)
                break
            at -= length
    return sorted(set(onsets)), horizon


def trials(
    task: Task,
    kept: Kept,
    span: Span,
    slices: Sequence[tuple[int, int]],
    back_ms: int,
    longest_ms: int,
    notes: list[str],
    progress: Progress,
) -> Iterator[Trial]:
    key, profile = next(iter(units_of(task.reference).items()))
    onsets, horizon = onsets_of(span, kept.pane_ms, back_ms, longest_ms)
    if not onsets and span.quiet:
        notes.append("the quiet part is too short to put drift in")
    plan = plan_for(profile, task.grid.candidates)
    kinds = [(i, cases) for i in INJECTIONS if (cases := i.cases(profile))]
    coarsest = max(c.pane_ms for c in task.grid.candidates)
    for n, onset in enumerate(onsets):
        before = list(kept.panes(key, profile, onset - back_ms - coarsest, onset))
        after = list(kept.panes(key, profile, onset, onset + horizon))
        if not after:
            continue
        values = drawn(profile, after, task.seed)
        for k, (injection, cases) in enumerate(kinds):
            concerned = {i for case in cases for i in case}
            own = [(d, f) for d, f in plan if concerned & set(f)]
            lookers = lookers_of(
                task,
                profile,
                own,
                after_ms=onset,
            )
            look(before, lookers.values())
            look(injected(injection, profile, values, task.seed), lookers.values())
            found = {}
            for pane_ms, looker in lookers.items():
                looker.until(onset + horizon)
                found |= {(pane_ms, label): own for label, own in looker.looks().items()}
            yield Trial(injection, onset, horizon, cases, found)
            progress("inject", (n + (k + 1) / len(kinds)) / len(onsets))
