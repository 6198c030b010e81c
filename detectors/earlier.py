"""An earlier part of the stream as a reference: a profile whose counts are those of windows.

The cells stay those of the fitted profile, so nothing has to be summarised again; what changes is how
many reference values lie in each. Counts on its values are exact. Values inside a gap are known to lie
between two of its values and no better, as with `slots`: the KS statistic is smaller than that of the
raw values by at most the share of the reference in one gap, `resolution`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .layout import BLOCK, layout_of
from .numeric import BEYOND, ONE, SUM, SUM_OF_SQUARES
from .profile import (
    ABSENT,
    CATEGORICAL_EXTRA,
    UNSEEN,
    CategoricalProfile,
    FeatureProfile,
    NumericProfile,
    Profile,
)
from .windows import Window


def profile_of(base: Profile, windows: Sequence[Window], ident: str) -> Profile:
    """The events in `windows`, at least one and of one bank, as a reference.

    Args:
        base: the profile that the windows' panes were made against.
        ident: id of the result.

    Vectors, which have no counts to be compared by, stay those of `base`.
    """
    layout = layout_of(base)
    store, sums = windows[0].store, windows[0].sums
    for window in windows[1:]:
        store, sums = store + window.store, sums + window.sums
    absent = store[layout.absent]
    features: list[FeatureProfile] = []
    for i, f in enumerate(base.numeric):
        begin = BLOCK * int(layout.first_block[i])
        inside = store[begin : begin + f.n_finite_cells].astype(np.int64)
        features.append(_numeric(f, inside, absent[i], sums[i]))
    for j, g in enumerate(base.categorical):
        i = base.n_numeric + j
        own = store[layout.position[base.offsets[i] : base.offsets[i + 1]]].astype(np.int64)
        features.append(_categorical(g, own))
    features += base.vectors
    found = Profile(features, sum(w.events for w in windows), ident)
    # Where the cells lie follows from the values alone.
    found.cached("layout", lambda: layout)
    return found


def _numeric(
    f: NumericProfile,
    inside: npt.NDArray[np.int64],
    absent: npt.NDArray[np.int32],
    sums: npt.NDArray[np.int64],
) -> NumericProfile:
    """inside: (2U + 1,) counts in order of value. absent: (4,). sums: (3,) as in panes."""
    through = np.cumsum(inside)
    n = int(through[-1])
    missing, nan, pos_inf, neg_inf = absent.tolist()
    near = n - int(sums[BEYOND])
    mean, sd = f.mean, f.sd
    if near > 1:
        z = int(sums[SUM]) / ONE / near
        variance = max(0.0, (int(sums[SUM_OF_SQUARES]) / ONE - near * z * z) / (near - 1))
        mean = f.mean + f.sd * z
        # A part of the stream in which nothing varies has no unit of its own.
        sd = f.sd * math.sqrt(variance) or f.sd
    return replace(
        f,
        through_gap=through[0::2],
        through_value=through[1::2],
        n=n,
        missing=missing,
        nan=nan,
        pos_inf=pos_inf,
        neg_inf=neg_inf,
        mean=mean,
        sd=sd,
        resolution=float(inside[0::2].max()) / n if n else 0.0,
        zero=f.mean,
        unit=f.sd,
    )


def _categorical(f: CategoricalProfile, counts: npt.NDArray[np.int64]) -> CategoricalProfile:
    unseen, missing = counts[-CATEGORICAL_EXTRA:].tolist()[UNSEEN : ABSENT + 1]
    return replace(f, counts=counts[:-CATEGORICAL_EXTRA], missing=missing, unseen=unseen)
