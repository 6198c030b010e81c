"""Drift put into the user's own data: the panes of a quiet stretch as they would have been.

A pane says into which cell each value fell: *on* a reference value, or *between* two neighbouring
ones. So the values themselves can be drawn again, each evenly within its gap, changed, and
summarised as ingest does it. A value is off by less than the gap it fell into, and a gap holds about
one reference row. All tests are of one feature, so which values came together does not matter.

All features are changed at once, and each is then judged by its own tests alone: so one run tells
of each feature what would have come if it had been the only one. Neighbours are swapped in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...detectors.panes import Columns, Pane, summarize
from ...detectors.profile import ABSENT, UNSEEN, CategoricalProfile, Profile, Scalar

# What stands for a category that the reference never had.
STRANGER: Final = "(unseen)"


@dataclass(frozen=True, slots=True)
class Injection:
    """A way in which data change.

    name: in JSON. text: for people, with its size. shift: of the mean, in reference standard
    deviations. scale: of the distances from the reference mean. gain: share of the events that move
    to a category. gone: share of the values that go missing. ramp_events: events until it has its
    full size, 0 for at once. swap: neighbouring numeric features take each other's values.
    """

    name: str
    text: str
    shift: float = 0.0
    scale: float = 1.0
    gain: float = 0.0
    gone: float = 0.0
    ramp_events: int = 0
    swap: bool = False

    def cases(self, profile: Profile) -> list[tuple[int, ...]]:
        """The features that are changed, each a case of its own; with a swap, the pairs."""
        numeric = list(range(profile.n_numeric))
        if self.swap:
            return [(i, i + 1) for i in numeric[:-1:2]]
        if self.gain:
            return [
                (profile.n_numeric + j,)
                for j, f in enumerate(profile.categorical)
                if len(f.categories) > 1
            ]
        return [(i,) for i in (range(len(profile.features)) if self.gone else numeric)]


INJECTIONS: Final = (
    Injection("mean_0.25", "mean +0.25 sd", shift=0.25),
    Injection("mean_0.5", "mean +0.5 sd", shift=0.5),
    Injection("mean_1", "mean +1 sd", shift=1.0),
    Injection("scale_1.5", "scale × 1.5", scale=1.5),
    Injection("gradual_1", "mean +1 sd, growing over 2,000 events", shift=1.0, ramp_events=2_000),
    Injection("missing_5", "5 % of the values missing", gone=0.05),
    Injection("category_10", "10 % of the events move to one category", gain=0.1),
    Injection("swap", "two features swapped", swap=True),
)


def values_of(profile: Profile, pane: Pane, rng: np.random.Generator) -> Columns:
    """Values that a pane may have been made of: summarised again they give its counts.

    What a reference value met is that value; what fell between two of them lies anywhere there.

    >>> from driftline.detectors import Columns, fit, summarize
    >>> profile, _ = fit({"x": list(range(40))})
    >>> columns = Columns.of(profile, {"x": [3, 3.5, 7.25, 99]})
    >>> [pane] = summarize(profile, columns, np.zeros(4, np.int64))
    >>> drawn = values_of(profile, pane, np.random.default_rng(0))
    >>> np.sort(drawn.numeric[0]).round(1).tolist()
    [3.0, 3.3, 7.6, 76.4]
    """
    n = pane.events
    borders = np.searchsorted(pane.cells, profile.offsets)
    numeric = np.full((profile.n_numeric, n), np.nan)
    nan = np.zeros((profile.n_numeric, n), np.bool_)
    for i, f in enumerate(profile.numeric):
        a, b = borders[i], borders[i + 1]
        cell = np.repeat(pane.cells[a:b] - profile.offsets[i], pane.counts[a:b])
        u = len(f.values)
        low = np.minimum(pane.low[i], f.values[0])
        high = np.maximum(pane.high[i], f.values[-1])
        edges = np.concatenate([[low], f.values, [high]])
        gap = np.flatnonzero(cell <= u)
        k = cell[gap]
        x = edges[k] + (edges[k + 1] - edges[k]) * rng.random(len(gap))
        # A gap is open: a value drawn onto its edge would be in another cell.
        x = np.where(k > 0, np.maximum(x, np.nextafter(edges[k], np.inf)), x)
        numeric[i, gap] = np.where(k < u, np.minimum(x, np.nextafter(edges[k + 1], -np.inf)), x)
        met = np.flatnonzero((cell > u) & (cell < f.n_finite_cells))
        numeric[i, met] = f.values[cell[met] - u - 1]
        rest = cell - f.n_finite_cells
        nan[i] = rest == 1
        numeric[i, rest == 2] = np.inf
        numeric[i, rest == 3] = -np.inf
        # Cells are in order; which value came when is not known, and must not follow from them.
        order = rng.permutation(n)
        numeric[i], nan[i] = numeric[i][order], nan[i][order]
    categorical: list[Sequence[Scalar]] = []
    for j, g in enumerate(profile.categorical):
        i = profile.n_numeric + j
        a, b = borders[i], borders[i + 1]
        names: list[Scalar] = [*g.categories, None, None]
        names[len(g.categories) + UNSEEN] = next(iter(pane.unseen.get(i, ())), STRANGER)
        names[len(g.categories) + ABSENT] = None
        local = np.repeat(pane.cells[a:b] - profile.offsets[i], pane.counts[a:b])
        categorical.append([names[c] for c in rng.permutation(local).tolist()])
    return Columns(n, numeric, tuple(categorical), nan)


def change(
    injection: Injection,
    profile: Profile,
    columns: Columns,
    done: int,
    rng: np.random.Generator,
) -> Columns:
    """The columns of the events `done`, `done` + 1, … after the onset, changed."""
    x = columns.numeric.copy()
    nan = None if columns.nan is None else columns.nan.copy()
    categorical = [list(column) for column in columns.categorical]
    if injection.shift or injection.scale != 1.0:
        part = np.ones(columns.n)
        if injection.ramp_events:
            part = np.minimum(1.0, (done + 1 + np.arange(columns.n)) / injection.ramp_events)
        mean = np.array([f.mean for f in profile.numeric])[:, None]
        sd = np.array([f.sd for f in profile.numeric])[:, None]
        x = mean + (x - mean) * injection.scale + injection.shift * sd * part
    if injection.swap:
        pairs = 2 * (profile.n_numeric // 2)
        order = np.arange(profile.n_numeric)
        order[:pairs] = order[:pairs].reshape(-1, 2)[:, ::-1].ravel()
        x = x[order]
        nan = None if nan is None else nan[order]
    if injection.gone:
        out = rng.random(x.shape) < injection.gone
        x[out] = np.nan
        if nan is not None:
            nan[out] = False
        for column in categorical:
            for i in np.flatnonzero(rng.random(columns.n) < injection.gone).tolist():
                column[i] = None
    if injection.gain:
        for f, column in zip(profile.categorical, categorical, strict=True):
            name = gaining(f)
            for i in np.flatnonzero(rng.random(columns.n) < injection.gain).tolist():
                column[i] = name
    return Columns(columns.n, x, tuple(categorical), nan)


def gaining(f: CategoricalProfile) -> str:
    """The category that gains: the second most common one of the reference."""
    order = np.argsort(-f.counts, kind="stable")
    return f.categories[int(order[min(1, len(order) - 1)])]


def injected(
    injection: Injection, profile: Profile, panes: Sequence[tuple[Pane, Columns]], seed: int
) -> Iterator[Pane]:
    """The panes of a stretch, in order of time, as they would have been.

    panes: each with values it may have been made of. seed: same seed, same panes.
    """
    done = 0
    for k, (pane, columns) in enumerate(panes):
        rng = np.random.default_rng([seed, 1, k])
        changed = change(injection, profile, columns, done, rng)
        done += pane.events
        start = np.full(columns.n, pane.start_ms, np.int64)
        yield from summarize(profile, changed, start)


def drawn(profile: Profile, panes: Sequence[Pane], seed: int) -> list[tuple[Pane, Columns]]:
    """Panes with values that they may have been made of."""
    return [
        (pane, values_of(profile, pane, np.random.default_rng([seed, 0, k])))
        for k, pane in enumerate(panes)
    ]
