"""What a detector is, and where detectors are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from .profile import Kind, Profile
from .windows import Window

ENTRY_POINTS = "driftline.detectors"


class Effect(NamedTuple):
    """How large a change is, in the feature's own terms.

    kind: `mean_shift` (value in `unit`, reference and window in the feature's unit),
        `share_shift` (all three are shares of the events; `category` is whose), `spread_shift` (as
        a mean's, of the standard deviation), `distance` (never negative; reference is 0) or
        `similarity_shift` (all three are mean kernel values with the reference, from 1 to 0).
    """

    kind: str
    value: float
    unit: str
    reference: float
    window: float
    category: str | None = None


# Tuples, since every test of every look makes one of each: a frozen dataclass takes three times as
# long to fill.
class Outcome(NamedTuple):
    """One test of one feature in one window.

    statistic, p_value: None where the test could not be made; `reason` then says why.
    confirmed_p: a second p-value that must agree before drift is called, where the first rests on
        an approximation the counts are too small for.
    detail: what else belongs into the verdict (JSON-able).
    threshold: what the statistic must exceed, of a test that decides by it and has no p-value.
    """

    feature: int
    statistic: float | None
    p_value: float | None
    effect: Effect | None = None
    reason: str | None = None
    confirmed_p: float | None = None
    detail: Mapping[str, Any] = MappingProxyType({})
    threshold: float | None = None

    @property
    def deciding_p(self) -> float | None:
        """The p-value that decides, the larger of the two; None where there is none."""
        if self.p_value is None or self.confirmed_p is None:
            return self.p_value
        return max(self.p_value, self.confirmed_p)

    def significant(self, alpha: float) -> bool:
        """Whether this is drift; `alpha` is the level of a test that has a p-value."""
        if self.threshold is not None:
            return self.statistic is not None and self.statistic > self.threshold
        p_value = self.deciding_p
        return p_value is not None and p_value <= alpha


@runtime_checkable
class Detector(Protocol):
    """A test of windows against a profile: pure, stateless, the same result for the same counts.

    name: as in driftline.yaml and in verdicts. kinds: the kinds of feature it can test. One whose
    outcome depends on which pane an event is in says so by a class attribute `reads_panes = True`;
    one to which a window in events is of use before it is full by `before_full = True`.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]

    def test(
        self, profile: Profile, windows: Sequence[Window], features: Sequence[int]
    ) -> list[list[Outcome]]:
        """One outcome per window (outer) and feature index (inner), in the order given."""
        ...


def before_full(detector: Detector) -> bool:
    """Whether it tests windows in events that are not full yet."""
    return getattr(detector, "before_full", False)


def plan_of(
    profile: Profile, names: Callable[[Kind], Sequence[str]]
) -> list[tuple[Detector, list[int]]]:
    """(detector, indices of the features it tests), given the detectors' names of each kind.

    names: asked for `multivariate`, too, of a profile whose numeric features can be tested together.
    """
    known = detectors()
    plan: dict[str, tuple[Detector, list[int]]] = {}
    for i in range(len(profile.features) + (profile.multivariate is not None)):
        kind = profile.kind_of(i)
        for name in names(kind):
            if kind in known[name].kinds:
                plan.setdefault(name, (known[name], []))[1].append(i)
    return list(plan.values())


@cache
def detectors() -> Mapping[str, Detector]:
    """Every detector by name: those of this package and those of the entry point group.

    Raises:
        TypeError: an entry point does not lead to a `Detector`. ValueError: two share a name.
    """
    found: dict[str, Detector] = {}
    home = __name__.rpartition(".")[0]
    package = importlib.import_module(home)
    candidates: list[tuple[str, Any]] = []
    for module in pkgutil.iter_modules(package.__path__):
        loaded = importlib.import_module(f"{home}.{module.name}")
        for thing in vars(loaded).values():
            own = isinstance(thing, type) and thing.__module__ == loaded.__name__
            if own and isinstance(getattr(thing, "name", None), str) and hasattr(thing, "test"):
                candidates.append((loaded.__name__, thing()))
    for point in entry_points(group=ENTRY_POINTS):
        candidates.append((f"entry point {point.name!r} ({point.value})", point.load()()))
    for source, detector in candidates:
        if not isinstance(detector, Detector):
            raise TypeError(
                f"{source} is not a detector: it needs `name`, `kinds` and `test(profile, windows, "
                "features)`; see driftline.detectors.Detector"
            )
        if detector.name in found:
            raise ValueError(
                f"{source}: a detector called {detector.name!r} is there already "
                f"({type(found[detector.name]).__module__}); rename one"
            )
        found[detector.name] = detector
    return found
