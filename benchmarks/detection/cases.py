"""The streams of the detection benchmark: references, quiet streams, and streams that change.

Numpy only, since the peers' environments run it too. Every draw is a function of (model, run), so all
detectors read the same events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ERT: Final = 10_000
REFERENCE_ROWS: Final = 4_000
HORIZON: Final = 2 * ERT  # a quiet stream ends here
CHANGE_AT: Final = 2_500
AFTER: Final = 3_000  # events after a change; one not seen by then is missed

SEED: Final = 20_26
SHARES: Final = (1 / np.arange(1, 9)) / (1 / np.arange(1, 9)).sum()
GAINING: Final = 2
# Name → numeric features; a categorical one of eight categories where 0.
MODELS: Final = {"one": 1, "twenty": 20, "category": 0}


@dataclass(frozen=True, slots=True)
class Case:
    """shift: of the mean, in standard deviations, up or down at random. scale: of the deviation.
    mass: gained by one category, from all others alike. over: events until the change is whole, 0 for
    at once. changed: how many features change; 0 is all."""

    name: str
    model: str
    shift: float = 0.0
    scale: float = 1.0
    mass: float = 0.0
    over: int = 0
    changed: int = 1


CASES: Final = (
    Case("mean 0.25 sd", "one", shift=0.25),
    Case("mean 0.5 sd", "one", shift=0.5),
    Case("mean 1 sd", "one", shift=1.0),
    Case("scale x 1.5", "one", scale=1.5),
    Case("mean 1 sd over 2,000", "one", shift=1.0, over=2_000),
    Case("one of twenty, mean 0.5 sd", "twenty", shift=0.5),
    Case("all twenty, mean 0.2 sd", "twenty", shift=0.2, changed=0),
    Case("a category + 10 %", "category", mass=0.1),
)


def _rng(model: str, run: int, part: int) -> np.random.Generator:
    return np.random.default_rng([SEED, list(MODELS).index(model), run, part])


def quiet(model: str, n: int, rng: np.random.Generator) -> Array:
    """(n, features); categories as codes 0 … 7."""
    if not MODELS[model]:
        return rng.choice(len(SHARES), (n, 1), p=SHARES).astype(np.float64)
    return rng.normal(size=(n, MODELS[model]))


def reference(model: str, run: int) -> Array:
    return quiet(model, REFERENCE_ROWS, _rng(model, run, 0))


def null(model: str, run: int) -> Array:
    return quiet(model, HORIZON, _rng(model, run, 1))


def before(model: str, run: int) -> Array:
    """The quiet events up to a change, the same for all cases of a model."""
    return quiet(model, CHANGE_AT, _rng(model, run, 2))


def after(case: Case, run: int) -> Array:
    """(AFTER, features) the events from the change on."""
    x = quiet(case.model, AFTER, _rng(case.model, run, 3))
    rng = _rng(case.model, run, 4)
    n_features = x.shape[1]
    sign = rng.choice([-1.0, 1.0], n_features)
    changed = np.zeros(n_features)
    changed[rng.permutation(n_features)[: case.changed or n_features]] = 1.0
    part = np.clip(np.arange(1, AFTER + 1) / max(case.over, 1), 0.0, 1.0)[:, None]
    if case.mass:
        moved = rng.random((AFTER, 1)) < case.mass / (1 - SHARES[GAINING]) * part
        return np.where(moved, GAINING, x)
    return x * (1 + (case.scale - 1) * changed) + case.shift * part * sign * changed


def cases_of(model: str) -> list[Case]:
    return [c for c in CASES if c.model == model]
