"""What `driftline tune` does with its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...schemas.errors import ConfigError
from ...schemas.units import FalseAlarms, parse_false_alarms
from .. import profiles
from ..config.document import Config, ModelConfig
from ..fit import Rows, collect
from ..sources import file_rows
from .candidates import grid
from .incidents import read_incidents
from .source import file_source, topic_source
from .task import Task
from .terminal import as_dict, show
from .work import Tuned, tune
from .write import write

# What is bearable where neither the command line nor the configuration says it.
BEARABLE: Final = "1 per 7d"
# Columns of text where nobody says how many there are.
WIDE: Final = 150
STAGES: Final = {
    "read": "read the events",
    "look": "test every window",
    "inject": "put drift in",
    "score": "score",
    "calibrate": "calibrate the best",
}


@dataclass(frozen=True)
class Options:
    """The command line's, as given."""

    input: Path | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    incidents: Path | None = None
    panes: Sequence[str] = ()
    windows: Sequence[str] = ()
    detectors: Sequence[str] = ()
    budgets: Sequence[str] = ()
    bearable: str | None = None
    reference_rows: Path | None = None
    events_per_hour: float | None = None
    calibrate: int = 3
    keep: Path | None = None
    fresh: bool = False
    seed: int = 0
    out: Path | None = None
    report: Path | None = None
    json: bool = False


def task_of(config: Config, model: ModelConfig, options: Options) -> Task:
    """Raises ConfigError where an option is wrong, DriftlineError where an input cannot be used."""
    if model.against is not None:
        raise ConfigError(
            f"model {model.name!r} is compared with earlier parts of its stream (`against`), and "
            "tune tries the fitted reference only; leave `against` out of the file it reads"
        )
    reference = profiles.load(model.reference, model.name).current
    try:
        bearable = _bearable(model, options)
        tried = grid(
            model,
            panes=options.panes,
            windows=options.windows,
            detector_sets=options.detectors,
            budgets=options.budgets,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    incidents = ()
    if options.incidents is not None:
        incidents = read_incidents(options.incidents, reference.whole.names)
    topic = model.input.topic
    if options.input is not None:
        source = file_source(config, topic, options.input)
    else:
        source = topic_source(config, topic, since_ms=options.since_ms, until_ms=options.until_ms)
    rows: Rows | None = None
    if options.reference_rows is not None:
        rows = collect(model, file_rows(options.reference_rows), timed=True)
    return Task(
        config,
        model,
        reference,
        source,
        tried,
        bearable,
        options.keep or config.path.absolute().parent / ".driftline" / "panes",
        incidents,
        rows,
        options.events_per_hour,
        options.calibrate,
        options.seed,
        options.fresh,
    )


def _bearable(model: ModelConfig, options: Options) -> FalseAlarms:
    if options.bearable is None:
        return model.false_alarms or parse_false_alarms(BEARABLE)
    try:
        return parse_false_alarms(options.bearable)
    except ValueError as error:
        raise ValueError(f"--bearable {options.bearable!r}: {error}") from None


def run(config: Config, model: ModelConfig, options: Options, err: Console) -> Tuned:
    """The whole command; writes what was asked for, prints the rest."""
    task = task_of(config, model, options)
    columns: list[Any] = [
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        bars: dict[str, Any] = {}

        def progress(stage: str, share: float) -> None:
            if stage not in bars:
                bars[stage] = bar.add_task(STAGES[stage], total=1.0)
            bar.update(bars[stage], completed=share)

        tuned = tune(task, progress)
    if options.out is not None:
        write(config.path, model, tuned.chosen.candidate, options.out)
    if options.report is not None:
        from .page import write_page

        write_page(tuned, options.report)
    if options.json:
        print(orjson.dumps(as_dict(tuned), option=orjson.OPT_INDENT_2).decode())
    else:
        show(tuned, _console(), options.out, options.report)
    return tuned


def _console() -> Console:
    """The terminal's, or in a pipe one as wide as the table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)
