"""The online tests of a unit's vector features, moved on as its panes close."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..schemas.units import iso_ms
from .base import Effect, Outcome
from .pane_mmd import PaneMMD
from .panes import Pane, merge_names
from .profile import Profile
from .vectors import WITHOUT, VectorProfile, VectorRows

NAME: Final = "online_mmd"
# Events shown with a verdict of drift, those least like the reference.
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class OnlineWindow:
    """The last `size` events of a feature, as they stood when the test said most.

    label, start_ms, end_ms, events: as a `Window` has them; of a run's first window, events are
    those of the stream, without the rows of the reference that fill it. outcome: of the pane that
    ended it.
    """

    label: str
    start_ms: int
    end_ms: int
    events: int
    outcome: Outcome
    names: Mapping[str, int]

    def versions(self) -> Mapping[str, int]:
        return self.names


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    start_ms: int
    rows: VectorRows
    versions: Mapping[str, int]


class OnlineBank:
    """One online test per vector feature of a profile.

    Args:
        seen: feature → events gone by, where the bank goes on from a restart.
        retention_ms: the farthest back that events are kept.
    """

    def __init__(
        self, profile: Profile, retention_ms: int, seen: Mapping[str, int] | None = None
    ) -> None:
        first = profile.n_numeric + profile.n_categorical
        self._retention_ms = retention_ms
        self._features = [
            _Feature(first + i, f, int(profile.offsets[first + i]), (seen or {}).get(f.name))
            for i, f in enumerate(profile.vectors)
        ]

    @property
    def seen(self) -> dict[str, int]:
        """Feature → events gone by."""
        return {f.profile.name: f.gone_by for f in self._features}

    @property
    def earliest_ms(self) -> int | None:
        """Start of the earliest pane that is still needed, None for none."""
        return min((f.kept[0].start_ms for f in self._features if f.kept), default=None)

    def push(self, end_ms: int, pane: Pane, quiet: bool) -> Iterator[OnlineWindow]:
        """Take a closed pane; yields one window per feature and size.

        quiet: the pane was taken before a restart: it is only remembered.
        """
        for feature in self._features:
            yield from feature.push(end_ms, pane, self._retention_ms, quiet)


class _Feature:
    def __init__(self, index: int, profile: VectorProfile, first: int, seen: int | None) -> None:
        self.index = index
        self.profile = profile
        self.kept: deque[_Kept] = deque()
        self._absent_cell = first + WITHOUT
        self._test = PaneMMD(profile.mmd)
        # What had gone by when a restarted monitor begins to test again.
        self._resumes_with = seen

    @property
    def gone_by(self) -> int:
        return self._test.seen if self._resumes_with is None else self._resumes_with

    def push(
        self, end_ms: int, pane: Pane, retention_ms: int, quiet: bool
    ) -> Iterator[OnlineWindow]:
        if not quiet and self._resumes_with is not None:
            # Fewer events are left only where the stream no longer keeps the others.
            if self._test.events >= min(self._resumes_with, self._test.largest):
                self._test.seen = self._resumes_with
            self._resumes_with = None
        rows = pane.vectors.get(self.index)
        if rows is None:
            return
        expired = 0
        while expired < len(self.kept) and self.kept[expired].start_ms < end_ms - retention_ms:
            expired += 1
        self._drop(expired)
        looks = self._test.push(rows.rows)
        self.kept.append(_Kept(pane.start_ms, rows, pane.versions))
        if not quiet:
            at = np.searchsorted(pane.cells, self._absent_cell)
            missing = 0
            if at < len(pane.cells) and pane.cells[at] == self._absent_cell:
                missing = int(pane.counts[at])
            offered = pane.events - missing
            for k, size in enumerate(self.profile.mmd.window_sizes):
                statistic, threshold = looks.statistic[:, k], looks.threshold[:, k]
                yield self._window(end_ms, size, statistic, threshold, missing, offered)
        self._drop(self._test.spare())

    def _drop(self, n_panes: int) -> None:
        if n_panes:
            self._test.forget(n_panes)
            for _ in range(n_panes):
                self.kept.popleft()

    def _window(
        self,
        end_ms: int,
        size: int,
        statistic: npt.NDArray[np.float64],
        threshold: npt.NDArray[np.float64],
        missing: int,
        offered: int,
    ) -> OnlineWindow:
        rows, label = self.kept[-1].rows, f"{size} events"
        n = len(rows)
        detail: dict[str, Any] = {
            "n_reference": len(self.profile.mmd.reference_window),
            "n_looks": n,
            "ert": self.profile.mmd.ert,
        }
        if missing:
            detail["missing"] = missing
        if offered > n:
            detail["sampled_out"] = offered - n
        exceeded = statistic - threshold
        at = int(exceeded.argmax())
        after = n - at - 1
        events = min(self._test.seen - after, size)
        if events < size:
            detail["reference_rows"] = size - events
        held = self._test.similarity
        similar = float(held[len(held) - after - events : len(held) - after].mean())
        drifted = np.flatnonzero(exceeded > 0)
        if len(drifted):
            first = int(drifted[0])
            detail["exceeded"] = len(drifted)
            detail["first"] = {
                "id": rows.ids[first],
                "time": iso_ms(int(rows.times_ms[first])),
            }
            detail["farthest"] = self._farthest(min(self._test.seen, size))
        effect = Effect(
            "similarity_shift",
            similar - self.profile.mmd.reference_term,
            "mean kernel value",
            self.profile.mmd.reference_term,
            similar,
        )
        outcome = Outcome(
            self.index,
            float(statistic[at]),
            None,
            effect=effect,
            detail=detail,
            threshold=float(threshold[at]),
        )
        return self._ended(label, self._start_of(after + events), end_ms, events, outcome)

    def _ended(
        self, label: str, start_ms: int, end_ms: int, events: int, outcome: Outcome
    ) -> OnlineWindow:
        inside = [k.versions for k in self.kept if k.start_ms >= start_ms]
        return OnlineWindow(label, start_ms, end_ms, events, outcome, merge_names(inside))

    def _start_of(self, back: int) -> int:
        """Start of the pane that holds the event that came `back` - 1 events before the last."""
        for kept in reversed(self.kept):
            back -= len(kept.rows)
            if back <= 0:
                return kept.start_ms
        return self.kept[0].start_ms

    def _farthest(self, size: int) -> list[dict[str, Any]]:
        """The events of the newest window least like the reference."""
        similarity = self._test.similarity[-size:]
        order = np.argsort(similarity, kind="stable")[:_SHOWN].tolist()
        shown: list[dict[str, Any]] = []
        for place in order:
            back = len(similarity) - place
            for kept in reversed(self.kept):
                if back <= len(kept.rows):
                    i = len(kept.rows) - back
                    entry: dict[str, Any] = {
                        "id": kept.rows.ids[i],
                        "time": iso_ms(int(kept.rows.times_ms[i])),
                        "similarity": float(similarity[place]),
                    }
                    if kept.rows.texts:
                        entry["text"] = kept.rows.texts[i]
                    shown.append(entry)
                    break
                back -= len(kept.rows)
        return shown
