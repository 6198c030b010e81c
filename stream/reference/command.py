"""`driftline reference …`: which reference is in force, and letting another one take over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from ..options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, model_of

if TYPE_CHECKING:
    from ..config.document import Config, ModelConfig
    from ..profiles import Reference

app = typer.Typer(
    help="Show the references of a model, or let another one take over.",
    no_args_is_help=True,
    add_completion=False,
)

ModelOption = Annotated[str | None, typer.Option(help="Which model of the file.")]


@app.command()
def promote(
    new: Annotated[
        str,
        typer.Argument(
            help="A directory or URL that `driftline fit --out` wrote, or the id of a reference "
            "that was in force before."
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    model: ModelOption = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where it takes over, in event time: a border of panes. Default: the next one that "
            "no event has come behind.",
        ),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            help="Compare events with both for so long before, so that windows of this size are "
            "full when it takes over. Default: none, windows begin there."
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Only write it down, and ask no broker: for replays, or while nothing has run.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let a new reference take over, while the stages run: no gap, and no window of both."""
    from ...schemas.units import iso_ms, parse_duration_ms, parse_time_ms
    from .switch import promote as promote_

    loaded, chosen = _model(config, model)
    try:
        from_ms = None if from_ is None else parse_time_ms(from_)
    except ValueError as error:
        raise typer.BadParameter(f"--from: {error}") from None
    try:
        overlap_ms = 0 if overlap is None else parse_duration_ms(overlap)
    except ValueError as error:
        raise typer.BadParameter(f"--overlap is {overlap!r}; {error}") from None
    done = promote_(loaded, chosen, new, from_ms=from_ms, overlap_ms=overlap_ms, offline=offline)
    since, start = iso_ms(done.entry.since_ms or 0), iso_ms(done.entry.from_ms or 0)
    if json:
        newest = None if done.newest_ms is None else iso_ms(done.newest_ms)
        result = {
            "model": done.model,
            "before": done.before,
            "after": done.after,
            "since": since,
            "from": start,
            "newest_event": newest,
        }
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
        return
    out = Console()
    out.print(
        f"[bold]{escape(done.model)}[/]: {done.before[:12]} → {done.after[:12]}, from {start} on (event "
        "time)",
        highlight=False,
    )
    if since != start:
        out.print(f"  events from {since} on are compared with both", highlight=False)


@app.command()
def show(
    config: ConfigOption = DEFAULT_CONFIG, model: ModelOption = None, json: JsonOption = False
) -> None:
    """Which references a model has had, and since when each is in force."""
    from .. import profiles

    _, chosen = _model(config, model)
    reference = profiles.load(chosen.reference, chosen.name)
    rows = [_row(one) for one in reference.eras]
    pending = None if reference.history is None else reference.history.pending
    if json:
        result: dict[str, Any] = {
            "model": chosen.name,
            "references": rows,
            "pending": None if pending is None else pending.to_json(),
        }
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
        return
    out = Console()
    for row in rows:
        since = f", events from {row['since']} on" if row["since"] != row["from"] else ""
        out.print(
            f"{row['id'][:12]}  {row['from'] or 'from the beginning'}  {row['rows']:,} rows{since}",
            highlight=False,
        )
        for caveat in row["caveats"]:
            out.print(
                f"  no promise for {caveat['unit']}: {caveat['caveat']}",
                markup=False,
                highlight=False,
            )
    if pending is not None:
        out.print(
            f"{pending.id[:12]}  being promoted, or its promotion was killed: run it again, or "
            "`driftline reference withdraw`",
            highlight=False,
        )


def _row(reference: Reference) -> dict[str, Any]:
    from ...schemas.units import iso_ms

    era, budget = reference.era, reference.budget
    return {
        "id": reference.id,
        "profile": reference.whole.id,
        "rows": reference.whole.n_rows,
        "false_alarms": None if budget is None else budget.false_alarms,
        "caveats": [
            {"unit": unit, "caveat": caveat}
            for unit, caveat in ([] if budget is None else budget.caveats)
        ],
        "since": None if era.since_ms is None else iso_ms(era.since_ms),
        "from": None if era.from_ms is None else iso_ms(era.from_ms),
        "until": None if era.until_ms is None else iso_ms(era.until_ms),
    }


@app.command()
def withdraw(config: ConfigOption = DEFAULT_CONFIG, model: ModelOption = None) -> None:
    """End a promotion that was killed; what has taken over stays."""
    from .switch import withdraw as withdraw_

    _, chosen = _model(config, model)
    pending = withdraw_(chosen)
    if pending is None:
        Console().print("no promotion is under way")
    else:
        Console().print(f"the promotion of {pending.id[:12]} is withdrawn", highlight=False)


def _model(path: Path, name: str | None) -> tuple[Config, ModelConfig]:
    config = load_config(path)
    return config, config.models[model_of(config, name)]
