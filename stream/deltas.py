"""Panes to messages and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..detectors.panes import Pane
from ..detectors.profile import Profile
from ..detectors.vectors import VectorRows
from ..schemas.errors import EventError
from ..schemas.pane import Delta, DeltaVectors


def to_delta(
    model: str, segment: Mapping[str, str], profile: Profile, panes: Sequence[Pane]
) -> Delta:
    """One delta holding `panes` (at least one), which were made against `profile`."""
    offsets = profile.offsets
    # A pane's cells come feature by feature, so its features' borders can be found by bisection.
    borders = np.stack([np.searchsorted(pane.cells, offsets) for pane in panes])
    lengths = np.diff(borders, axis=1)
    cells = np.concatenate([pane.cells for pane in panes])
    cells = cells - np.repeat(np.tile(offsets[:-1], len(panes)), lengths.ravel())
    return Delta(
        model=model,
        segment=segment,
        profile=profile.id,
        start_ms=np.array([pane.start_ms for pane in panes], np.int64),
        events=np.array([pane.events for pane in panes], np.int64),
        lengths=lengths,
        cells=cells,
        counts=np.concatenate([pane.counts for pane in panes]),
        sums=np.stack([pane.sums for pane in panes]),
        low=np.stack([pane.low for pane in panes]),
        high=np.stack([pane.high for pane in panes]),
        unseen=[
            (p, feature, name, count)
            for p, pane in enumerate(panes)
            for feature, names in sorted(pane.unseen.items())
            for name, count in names.items()
        ],
        versions=[
            (p, name, count)
            for p, pane in enumerate(panes)
            for name, count in pane.versions.items()
        ],
        vectors=_vectors(panes),
    )


def _vectors(panes: Sequence[Pane]) -> list[DeltaVectors]:
    found: list[DeltaVectors] = []
    for feature in sorted({feature for pane in panes for feature in pane.vectors}):
        of = [(p, pane.vectors[feature]) for p, pane in enumerate(panes) if feature in pane.vectors]
        found.append(
            DeltaVectors(
                feature,
                np.repeat(np.array([p for p, _ in of], np.uint32), [len(rows) for _, rows in of]),
                np.concatenate([rows.times_ms for _, rows in of]),
                [ident for _, rows in of for ident in rows.ids],
                np.concatenate([rows.rows for _, rows in of]),
                [text for _, rows in of for text in rows.texts],
            )
        )
    return found


def to_panes(delta: Delta, profile: Profile) -> list[Pane]:
    """The panes in a delta made against `profile`.

    Raises:
        EventError: the delta speaks of cells that the profile does not have.
    """
    n_parts, n_features = len(delta.start_ms), len(profile.features)
    if delta.lengths.shape != (n_parts, n_features) or delta.low.shape[1:] != (profile.n_numeric,):
        raise EventError(
            "bad_pane",
            f"pane delta with {delta.lengths.shape[1]} features of which {delta.low.shape[1]} "
            f"numeric; profile {profile.id} has {n_features} and {profile.n_numeric}",
        )
    lengths = delta.lengths.astype(np.int64)
    sizes = np.tile(np.diff(profile.offsets), n_parts)
    per_entry = np.repeat(sizes, lengths.ravel())
    local = delta.cells.astype(np.int64)
    if bool((local >= per_entry).any()):
        raise EventError("bad_pane", f"pane delta with a cell beyond those of {profile.id}")
    cells = local + np.repeat(np.tile(profile.offsets[:-1], n_parts), lengths.ravel())
    cells, counts = cells.astype(np.int32), delta.counts.astype(np.int32)
    ends = lengths.sum(axis=1).cumsum()
    starts = np.concatenate([[0], ends[:-1]])
    panes = [
        Pane(
            start_ms=int(delta.start_ms[p]),
            events=int(delta.events[p]),
            cells=cells[starts[p] : ends[p]],
            counts=counts[starts[p] : ends[p]],
            sums=delta.sums[p],
            low=delta.low[p],
            high=delta.high[p],
        )
        for p in range(n_parts)
    ]
    for p, feature, name, count in delta.unseen:
        panes[p].unseen.setdefault(feature, {})[name] = count
    for p, name, count in delta.versions:
        panes[p].versions[name] = count
    for own in delta.vectors:
        _take_vectors(panes, own, profile)
    return panes


def _take_vectors(panes: Sequence[Pane], own: DeltaVectors, profile: Profile) -> None:
    first = profile.n_numeric + profile.n_categorical
    if not first <= own.feature < len(profile.features):
        raise EventError("bad_pane", f"pane delta with vectors of feature {own.feature}, no vector")
    wanted = profile.vector(own.feature).dimension
    if own.rows.shape[1] != wanted:
        raise EventError(
            "bad_pane",
            f"pane delta with vectors of {own.rows.shape[1]} numbers where profile {profile.id} "
            f"has {wanted}",
        )
    edges = np.searchsorted(own.part, np.arange(len(panes) + 1)).tolist()
    for p, (a, b) in enumerate(pairwise(edges)):
        if a < b:
            rows = VectorRows(own.times_ms[a:b], own.ids[a:b], own.rows[a:b], own.texts[a:b])
            panes[p].vectors[own.feature] = rows
