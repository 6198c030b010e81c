"""Candidates: what may be changed in a model's configuration, and which changes are tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, NamedTuple, TypeVar

from ...detectors.base import detectors
from ...detectors.shiryaev_roberts import ShiryaevRoberts
from ...detectors.windows import WindowSpec
from ...schemas.errors import DriftlineError
from ...schemas.units import (
    EventWindow,
    FalseAlarms,
    format_duration,
    parse_duration_ms,
    parse_false_alarms,
    parse_window,
)
from ..config.document import ModelConfig

T = TypeVar("T")

KINDS: Final = ("numeric", "categorical")
ALPHAS: Final = (0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5, 1e-6, 1e-8, 1e-12)
# The most that are tried: each is scored in milliseconds, and nobody reads a longer table.
MOST: Final = 20_000


@dataclass(frozen=True, slots=True)
class Level:
    """When a test decides: exactly one of `alpha` (a look at the whole model, Bonferroni) and
    `budget` (how often a false alarm is bearable) is given."""

    alpha: float | None = None
    budget: FalseAlarms | None = None

    @property
    def label(self) -> str:
        return f"alpha {self.alpha:g}" if self.budget is None else self.budget.label


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration.

    numeric, categorical: names of the detectors of each kind of feature; multivariate: of all numeric
    ones together. current: it is the one in driftline.yaml.
    """

    pane_ms: int
    windows: tuple[WindowSpec, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    level: Level
    multivariate: tuple[str, ...] = ()
    current: bool = False

    def detectors_for(self, kind: str) -> tuple[str, ...]:
        if kind == "multivariate":
            return self.multivariate
        return self.numeric if kind == "numeric" else self.categorical

    @property
    def pane(self) -> str:
        return format_duration(self.pane_ms)

    @property
    def windows_label(self) -> str:
        return ", ".join(w.label for w in self.windows)

    @property
    def detectors_label(self) -> str:
        return self.detectors_of(KINDS)

    def detectors_of(self, kinds: Iterable[str]) -> str:
        """Its detectors of these kinds of features, and of all numeric ones together."""
        own = dict.fromkeys(name for kind in kinds for name in self.detectors_for(kind))
        return ", ".join([*own, *(f"multivariate {name}" for name in self.multivariate)])

    @property
    def label(self) -> str:
        return (
            f"pane {self.pane} · {self.windows_label} · {self.detectors_label} · {self.level.label}"
        )

    def config(self, model: ModelConfig) -> ModelConfig:
        """The model with this candidate's settings."""
        alpha = model.alpha if self.level.alpha is None else self.level.alpha
        return model.model_copy(
            update={
                "pane_ms": self.pane_ms,
                "windows": self.windows,
                "detectors": {
                    "numeric": self.numeric,
                    "categorical": self.categorical,
                    "multivariate": self.multivariate,
                },
                "alpha": alpha,
                "false_alarms": self.level.budget,
            }
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The candidates, and how many combinations were left out with why."""

    candidates: tuple[Candidate, ...]
    left_out: int
    reason: str

    @property
    def base_pane_ms(self) -> int:
        """The pane that all others are made of."""
        return math.gcd(*(c.pane_ms for c in self.candidates))


def grid(
    model: ModelConfig,
    *,
    panes: Sequence[str] = (),
    windows: Sequence[str] = (),
    detector_sets: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> Grid:
    """Every combination of the options, each a list of what the command line was given; the
    current configuration is among them. An empty list is filled from the configuration.

    Raises:
        ValueError: an option cannot be read; says which, the rule and an example.
        DriftlineError: nothing is left to try, or too much.
    """
    chosen_panes = _each("--panes", panes, _pane) or _default_panes(model)
    window_sets = _each("--windows", windows, _windows) or _default_windows(model)
    sets = _each("--detectors", detector_sets, lambda t: _detectors(t, model))
    sets = sets or _default_detectors(model)
    levels = _each("--budgets", budgets, parse_level) or _default_levels(model)
    current = Candidate(
        model.pane_ms,
        model.windows,
        model.detectors_for("numeric"),
        model.detectors_for("categorical"),
        Level(None, model.false_alarms) if model.false_alarms else Level(model.alpha),
        model.detectors_for("multivariate"),
        current=True,
    )
    found: dict[object, Candidate] = {_identity(current): current}
    left_out, reason = 0, ""
    for pane_ms, specs in product(dict.fromkeys(chosen_panes), dict.fromkeys(window_sets)):
        why = misfit(pane_ms, specs, model)
        if why is not None:
            left_out += len(sets) * len(levels)
            reason = reason or why
            continue
        for own, level in product(dict.fromkeys(sets), dict.fromkeys(levels)):
            one = Candidate(pane_ms, specs, own.numeric, own.categorical, level, own.multivariate)
            found.setdefault(_identity(one), one)
    if len(found) > MOST:
        raise DriftlineError(
            f"{len(found):,} combinations of panes, windows, detectors and budgets; at most "
            f"{MOST:,} are tried: give fewer of them"
        )
    return Grid(tuple(found.values()), left_out, reason)


def _identity(c: Candidate) -> object:
    return (c.pane_ms, c.windows, c.numeric, c.categorical, c.multivariate, c.level.label)


def misfit(pane_ms: int, windows: Sequence[WindowSpec], model: ModelConfig) -> str | None:
    """Why windows cannot be made of such panes, None where they can."""
    for window in windows:
        if isinstance(window, EventWindow):
            continue
        for what, length in (("size", window.size_ms), ("hop", window.hop_ms)):
            if length is not None and length % pane_ms:
                return (
                    f"the {what} of window {window.label} is not a multiple of a pane of "
                    f"{format_duration(pane_ms)}"
                )
        needed = window.size_ms + model.allowed_lateness_ms
        if needed > model.retention_ms:
            return (
                f"window {window.label} with allowed_lateness is longer than retention, "
                f"{format_duration(model.retention_ms)}"
            )
    return None


def _each(option: str, texts: Sequence[str], read: Callable[[str], T]) -> list[T]:
    found: list[T] = []
    for text in texts:
        try:
            found.append(read(text))
        except ValueError as error:
            raise ValueError(f"{option} {text!r}: {error}") from None
    return found


def _pane(text: str) -> int:
    length = parse_duration_ms(text)
    if length < 1:
        raise ValueError("a pane is longer than nothing, such as 1m")
    return length


def _windows(text: str) -> tuple[WindowSpec, ...]:
    """`1h, 2000 events, 1d hop 1d`: one set."""
    windows: list[WindowSpec] = []
    for part in text.split(","):
        size, hop, step = part.partition(" hop ")
        spec: object = {"size": size.strip(), "hop": step.strip()} if hop else part.strip()
        window = parse_window(spec)
        if any(_extent(window) == _extent(other) for other in windows):
            raise ValueError(f"{window.label} is listed twice; remove one")
        windows.append(window)
    return tuple(windows)


def _extent(window: WindowSpec) -> object:
    """What a window is apart from its name: 60m and 1h test the same events."""
    return replace(window, label="")


class _Set(NamedTuple):
    """Names of detectors, by kind."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    multivariate: tuple[str, ...]

    def without(self, name: str) -> _Set:
        return _Set(*(tuple(n for n in names if n != name) for names in self))


def _detectors(text: str, model: ModelConfig) -> _Set:
    """`ks, missing_rate, chi_squared`: one set; a kind of which none is named keeps its own, and all
    numeric features are tested together as the configuration has it, by what is named here."""
    known = detectors()
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no detector {name!r}; there are {', '.join(sorted(known))}")
    chosen = {k: tuple(n for n in names if k in known[n].kinds) for k in KINDS}
    own = _own(model)
    numeric = chosen["numeric"] or own.numeric
    return _Set(
        numeric,
        chosen["categorical"] or own.categorical,
        tuple(n for n in own.multivariate if n in numeric),
    )


def _own(model: ModelConfig) -> _Set:
    return _Set(*map(model.detectors_for, _Set._fields))


def parse_level(text: str) -> Level:
    """`0.01` or `alpha 0.01`, or a budget such as `1 per 30d`.

    >>> parse_level("1 per 30d").label, parse_level("0.001").alpha
    ('1 per 30d', 0.001)
    """
    number = text.strip().removeprefix("alpha").lstrip(" =:")
    try:
        alpha = float(number)
    except ValueError:
        if number != text.strip():
            raise ValueError("alpha is a number between 0 and 1, such as alpha 0.001") from None
        return Level(None, parse_false_alarms(text))
    if not 0 < alpha < 1:
        raise ValueError("alpha lies between 0 and 1, such as 0.001")
    return Level(alpha)


def _default_panes(model: ModelConfig) -> list[int]:
    return [model.pane_ms, 5 * model.pane_ms]


def _scaled(window: WindowSpec, factor: float, pane_ms: int) -> WindowSpec:
    if isinstance(window, EventWindow):
        return parse_window(f"{max(1, round(window.events * factor))} events")
    size_ms = max(1, round(window.size_ms * factor / pane_ms)) * pane_ms
    if window.hop_ms is None:
        return parse_window(format_duration(size_ms))
    hop_ms = max(1, round(window.hop_ms * factor / pane_ms)) * pane_ms
    return parse_window({"size": format_duration(size_ms), "hop": format_duration(hop_ms)})


def _default_windows(model: ModelConfig) -> list[tuple[WindowSpec, ...]]:
    """The configured windows together, each alone, and all at half and at twice their size."""
    sets: list[tuple[WindowSpec, ...]] = [model.windows]
    sets += [(w,) for w in model.windows]
    for factor in (0.5, 2.0):
        sets.append(tuple(dict.fromkeys(_scaled(w, factor, model.pane_ms) for w in model.windows)))
    return sets


def _default_detectors(model: ModelConfig) -> list[_Set]:
    """The configured detectors together, these with and without the one that suits most changes, and
    each detector of numbers there is, alone."""
    own, early = _own(model), ShiryaevRoberts.name
    both = [tuple(dict.fromkeys((*names, early))) for names in (own.numeric, own.categorical)]
    sets = [own, own._replace(numeric=both[0], categorical=both[1])]
    without = own.without(early)
    if without.numeric and without.categorical:
        sets.append(without)
    alone = [name for name, d in sorted(detectors().items()) if "numeric" in d.kinds]
    return [*sets, *(_Set((name,), without.categorical or own.categorical, ()) for name in alone)]


def _default_levels(model: ModelConfig) -> list[Level]:
    budget = model.false_alarms
    if budget is None:
        return [Level(alpha) for alpha in dict.fromkeys((model.alpha, *ALPHAS))]
    return [Level(None, b) for b in (budget, *_other_budgets(budget))]


def _other_budgets(budget: FalseAlarms) -> list[FalseAlarms]:
    found = []
    one = "about 1" if budget.about else "1"
    for factor in (0.25, 4.0):
        if budget.events is not None:
            events = max(1, round(budget.events * factor))
            found.append(parse_false_alarms(f"{one} per {events} events"))
        elif budget.ms is not None:
            ms = format_duration(round(budget.ms * factor))
            found.append(parse_false_alarms(f"{one} per {ms}"))
    return found


def all_windows(candidates: Sequence[Candidate]) -> Mapping[int, tuple[WindowSpec, ...]]:
    """Pane length → every window that some candidate with such panes has."""
    found: dict[int, dict[str, WindowSpec]] = {}
    for c in candidates:
        own = found.setdefault(c.pane_ms, {})
        for window in c.windows:
            own.setdefault(window.label, window)
    return {pane: tuple(own.values()) for pane, own in sorted(found.items())}


def all_detectors(candidates: Sequence[Candidate], kind: str) -> tuple[str, ...]:
    """Every detector that some candidate tests features of a kind with."""
    return tuple(dict.fromkeys(name for c in candidates for name in c.detectors_for(kind)))
