"""What is to be tuned, and what follows from that alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...detectors.base import plan_of
from ...detectors.profile import Kind, Profile
from ...schemas.units import FalseAlarms
from ...schemas.verdict import unit_key
from ..config.document import Config, ModelConfig
from ..fit import Rows
from ..profiles import Reference
from .candidates import Candidate, Grid, all_detectors, all_windows
from .incidents import Incident
from .looks import Looker, Plan
from .source import Source

# Called with the name of a stage and the share of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Task:
    """What is to be tuned, on what.

    bearable: how often a false alarm is bearable; what the choice is made by. reference_rows: the
    rows that the reference was fitted on, for calibration. calibrate: so many candidates with a
    budget, at most. seed: of the drift that is put in.
    """

    config: Config
    model: ModelConfig
    reference: Reference
    source: Source
    grid: Grid
    bearable: FalseAlarms
    directory: Path
    incidents: Sequence[Incident] = ()
    reference_rows: Rows | None = None
    events_per_hour: float | None = None
    calibrate: int = 3
    seed: int = 0
    fresh: bool = False


def units_of(reference: Reference) -> dict[str, Profile]:
    """Unit key → its profile, the whole model first."""
    whole = unit_key(reference.model, {})
    keys = [whole, *(key for key in sorted(reference.units) if key != whole)]
    return {key: reference.units[key][1] for key in keys}


def plan_for(profile: Profile, candidates: Sequence[Candidate]) -> Plan:
    """Every test that some candidate makes."""

    def names(kind: Kind) -> tuple[str, ...]:
        return all_detectors(candidates, kind)

    return plan_of(profile, names)


def lookers_of(
    task: Task,
    profile: Profile,
    plan: Plan,
    *,
    after_ms: int | None = None,
) -> dict[int, Looker]:
    """Pane length → who looks at the windows over such panes."""
    return {
        pane_ms: Looker(
            profile,
            plan,
            pane_ms,
            windows,
            retention_ms=task.model.retention_ms,
            min_events=task.model.min_events,
            after_ms=after_ms,
        )
        for pane_ms, windows in all_windows(task.grid.candidates).items()
    }
