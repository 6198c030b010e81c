"""The command line.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 3 a check found drift.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ..schemas.errors import DriftlineError
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, model_of, models_of
from .reference.command import app as reference_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .config.document import Config

app = typer.Typer(
    name="driftline",
    help="A streaming drift monitor for machine-learning models on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(reference_app, name="reference")
err = Console(stderr=True)

LogLevel = Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")]


class StageName(StrEnum):
    ingest = "ingest"
    detect = "detect"
    alert = "alert"


class TailTopic(StrEnum):
    drift = "drift"
    alerts = "alerts"


@app.command()
def demo(
    subject: Annotated[
        str, typer.Argument(help="`flights`, or `text` for a stream whose meaning changes.")
    ] = "flights",
    directory: Annotated[Path, typer.Option(help="Where to leave the configuration.")] = Path(
        "driftline-demo"
    ),
    speed: Annotated[float, typer.Option(help="Days of the stream per second.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="End at the first alert.")] = False,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="A live page, or plain lines.")
    ] = None,
) -> None:
    """A real broker, a real year of flights, a live page: the first alert within a minute."""
    if subject == "text":
        from .demo.text import demo as run_text

        raise typer.Exit(run_text(directory, once, live))
    if subject != "flights":
        raise typer.BadParameter(f"{subject!r} is no demo; write `flights` or `text`")
    from .demo.show import demo as run_demo

    raise typer.Exit(run_demo(directory, speed, once, live))


@app.command()
def init(
    topic: Annotated[str, typer.Option(help="The topic with inference events.")],
    bootstrap_servers: Annotated[
        str, typer.Option("--bootstrap-servers", "-b", help="Where Kafka is.")
    ] = "localhost:9092",
    kafka: Annotated[
        list[str] | None, typer.Option(help="A client property, name=value; repeat for more.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = DEFAULT_CONFIG,
    sample: Annotated[int, typer.Option(min=1, help="How many messages to look at.")] = 2000,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Look at a topic and propose driftline.yaml."""
    from .init.propose import look, show, write

    properties: dict[str, str] = {"bootstrap.servers": bootstrap_servers}
    for entry in kafka or []:
        name, equals, value = entry.partition("=")
        if not equals:
            raise typer.BadParameter(f"{entry!r} is not name=value, as in sasl.mechanism=PLAIN")
        properties[name] = value
    findings = look(properties, topic, sample)
    show(findings, Console())
    write(findings, out, force=force)
    err.print(f"wrote {out}; next: driftline fit --config {out}", markup=False)


@app.command()
def fit(
    config: ConfigOption = DEFAULT_CONFIG,
    input: Annotated[
        Path | None, typer.Option(help="A JSONL, CSV or Parquet file instead of the topic.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First Kafka time of the range.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the range, not included.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Only so many first events.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model of the file.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Write it there, for `driftline reference promote`; a directory or URL."),
    ] = None,
    events_per_hour: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="The model's rate, for `false_alarms`, where the times of the reference events do "
            "not tell it (they are a sample).",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make the reference profile from reference events, and find the levels that keep the budget."""
    from ..detectors.profile import column_kind
    from .fit import collect, constants
    from .profiles import save, unused
    from .sources import file_rows, topic_range

    loaded = load_config(config)
    results: list[dict[str, Any]] = []
    chosen = models_of(loaded, model)
    if out is not None and len(chosen) > 1:
        raise typer.BadParameter(
            f"--out takes the reference of one model, and the file has {', '.join(chosen)}; choose "
            "with --model"
        )
    for name in chosen:
        wanted = loaded.models[name]
        place = unused(out or wanted.reference)
        if input is not None:
            values: Iterator[bytes | None] = iter(file_rows(input))
            source = {"file": input.name}
        else:
            batches = topic_range(
                loaded, wanted.input.topic, since_ms=_time(since), until_ms=_time(until)
            )
            values = (v for b in batches for v in b.messages.values)
            source = {"topic": wanted.input.topic, "since": since, "until": until}
        rows = collect(wanted, values, events)
        fitted = _fitted(wanted, rows, source, events_per_hour)
        reference = fitted.reference
        if wanted.false_alarms is not None:
            reference = _calibrated(reference, rows, events_per_hour)
        save(reference, place)
        whole = reference.whole
        results.append(
            {
                "model": name,
                "reference": place,
                "id": whole.id,
                "rows": rows.n,
                "refused": rows.refused,
                "reasons": rows.reasons,
                "other_models": rows.others,
                "features": {f.name: column_kind(f) for f in whole.features},
                "constant": constants(reference),
                "segments": [dict(s) for s, _ in fitted.reference.units.values() if s],
                "left_out": [
                    {"unit": unit, "column": entry.name, "reason": entry.reason}
                    for unit, entry in fitted.left_out
                ],
                "budget": None if reference.budget is None else reference.budget.to_json(),
                "caveats": [
                    {"unit": unit, "caveat": caveat}
                    for unit, caveat in (
                        [] if reference.budget is None else reference.budget.caveats
                    )
                ],
            }
        )
    if json:
        print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
        return
    for result in results:
        _show_fit(result)


@contextmanager
def _bars(verb: str) -> Iterator[Callable[[str, float], None]]:
    """What is called with a name and the share of it that is done; a progress bar for each name."""
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"{verb} {name}", total=1.0)
            bar.update(tasks[name], completed=done)

        yield show


def _fitted(model: Any, rows: Any, source: Any, events_per_hour: float | None) -> Any:
    """The reference of a model; texts are embedded under a progress bar."""
    from .calibrate import budget_events
    from .fit import fit_rows

    budget = None
    if model.false_alarms is not None and model.vectors:
        budget = budget_events(rows, events_per_hour)
    with _bars("embed") as show:
        return fit_rows(rows, source, budget_events=budget, progress=show)


def _calibrated(reference: Any, rows: Any, events_per_hour: float | None) -> Any:
    """The reference with the levels that keep the model's budget of false alarms."""
    from .calibrate import keep_budget

    with _bars("calibrate") as show:
        return keep_budget(reference, rows, events_per_hour=events_per_hour, progress=show)


def _show_budget(out: Console, budget: Mapping[str, Any]) -> None:
    for key, found in budget["units"].items():
        drawn = "drawn singly" if found["block"] == 1 else f"drawn in blocks of {found['block']:,}"
        if found["period"]:
            drawn += f", in step with a cycle of {found['period']:,.0f} rows"
        if found["grain"] > 1:
            drawn += f", each for {found['grain']} events"
        reached = ", beyond what was simulated" if found["tail"] == "log-linear" else ""
        aim = "sought" if found.get("caveats") else "asked"
        out.print(
            f"  {key}: one false alarm per {found['ert_events']:,.0f} of its events {aim}, "
            f"{found['estimate']:,.0f} estimated{reached} (95 %: {found['low']:,.0f} to "
            f"{found['high']:,.0f}); {len(found['levels'])} tests, {found['replicates']:,} "
            f"simulated pairs of reference and stream, {found['events']:,} events; rows {drawn}",
            markup=False,
            highlight=False,
        )


def _show_fit(result: dict[str, Any]) -> None:
    out = Console()
    kinds: dict[str, list[str]] = {}
    for name, kind in result["features"].items():
        kinds.setdefault(kind, []).append(name)
    out.print(
        f"[bold]{escape(result['model'])}[/]: {result['rows']:,} reference rows → "
        f"{escape(result['reference'])} ({result['id'][:12]})"
    )
    for kind, names in kinds.items():
        out.print(f"  {kind:<12} {', '.join(names)}", markup=False, highlight=False)
    if result["segments"]:
        out.print(f"  segments     {len(result['segments'])}")
    for entry in result["constant"]:
        rows = f"all {entry['rows']:,} reference rows"
        rows += f" that have a value ({entry['missing']:,} have none)" if entry["missing"] else ""
        out.print(
            f"  constant     {entry['column']} of {entry['unit']} is {entry['value']} in {rows}: "
            "watched for any other value",
            markup=False,
            highlight=False,
        )
    for entry in result["left_out"]:
        out.print(
            f"  left out     {entry['column']} of {entry['unit']}: {entry['reason']}",
            markup=False,
            highlight=False,
        )
    if (budget := result["budget"]) is not None:
        out.print(
            f"  false alarms {budget['false_alarms']}, at {budget['events_per_hour']:,.0f} events "
            "an hour",
            markup=False,
            highlight=False,
        )
        _show_budget(out, budget)
    for entry in result["caveats"]:
        out.print("  [bold red]NO PROMISE[/]   ", end="")
        out.print(f"{entry['unit']}: {entry['caveat']}", markup=False, highlight=False)
    if result["refused"]:
        out.print(
            f"  refused      {result['refused']:,} messages, the first: {result['reasons'][0]}",
            markup=False,
            highlight=False,
        )


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    stage: Annotated[
        StageName | None, typer.Option(help="Only this stage, in this process.")
    ] = None,
    ingest_workers: Annotated[int, typer.Option(min=0, help="Processes of the stage.")] = 1,
    detect_workers: Annotated[int, typer.Option(min=0, help="Processes of the stage.")] = 1,
    alert_workers: Annotated[int, typer.Option(min=0, help="Processes of the stage.")] = 1,
    log_level: LogLevel = "INFO",
) -> None:
    """Run the monitor: all stages as supervised processes, or one."""
    from .logs import log_to_stderr
    from .run import Supervisor, references, run_stage

    log_to_stderr(log_level)
    loaded = load_config(config)
    if stage is not None:
        raise typer.Exit(run_stage(loaded, stage.value, log_level))
    references(loaded)
    workers: Any = {"ingest": ingest_workers, "detect": detect_workers, "alert": alert_workers}
    raise typer.Exit(Supervisor(config, workers, log_level).run())


@app.command()
def replay(
    config: ConfigOption = DEFAULT_CONFIG,
    input: Annotated[
        Path | None, typer.Option(help="A JSONL, CSV or Parquet file instead of the topic.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First Kafka time of the range.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the range, not included.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write verdicts, as JSONL.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model of the file.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Also publish the verdicts to the drift topic.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 if there is drift.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where to write a page about it, as HTML.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Do over a bounded range exactly what the live stages do; nothing is published unless asked."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ..detectors.base import detectors  # noqa: F401  (loads scipy before the clock runs)
    from .replay import Replay
    from .report.findings import Findings
    from .run import references
    from .sources import file_batches, topic_range

    if input is not None and (since is not None or until is not None):
        raise typer.BadParameter(
            "a file is read whole: nothing in it has a Kafka time for --since and --until"
        )
    page = _Page(report) if report is not None else None
    if out is not None:
        _check_place(out)
    loaded = load_config(config)
    chosen = models_of(loaded, model)
    loaded = loaded.model_copy(update={"models": {n: loaded.models[n] for n in chosen}})
    topics = {m.input.topic for m in loaded.models.values()}
    if len(topics) > 1:
        raise typer.BadParameter(
            f"the models read several topics ({', '.join(sorted(topics))}) and one range is replayed "
            "at a time; choose with --model"
        )
    topic = topics.pop()
    work = Replay(loaded, references(loaded))
    if input is not None:
        batches = file_batches(input, topic)
    else:
        batches = topic_range(loaded, topic, since_ms=_time(since), until_ms=_time(until))
    findings = Findings()
    if page is not None:
        page.begin(work, str(input.name) if input is not None else _range_text(topic, since, until))
    publisher = _Publisher(loaded) if publish else None
    columns = [
        TextColumn("replay"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.completed:,.0f} events, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    ]
    with (
        Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar,
        _opened(out) if out is not None else nullcontext() as file,
    ):
        task = bar.add_task("", total=None, rate=0.0)
        for verdict in work.run(_watched(batches, bar, task, work)):
            parsed = findings.add(verdict)
            if page is not None:
                page.record.verdict(verdict.key, parsed)
            if file is not None:
                file.write(verdict.value + b"\n")
            if publisher is not None:
                publisher.add(verdict)
    if publisher is not None:
        publisher.close()
    if json:
        print(orjson.dumps(findings.as_dict(work)).decode())
    else:
        findings.show(Console(), work, out)
    if page is not None:
        page.write(findings)
    if check and findings.n_drifted:
        raise typer.Exit(3)


def _watched(batches: Any, bar: Any, task: Any, work: Any) -> Iterator[Any]:
    for batch in batches:
        yield batch
        rate = bar.tasks[0].speed or 0.0
        bar.update(task, completed=work.done, total=work.total, rate=rate)


def _range_text(topic: str, since: str | None, until: str | None) -> str:
    said = "".join(f" {word} {t}" for word, t in (("since", since), ("until", until)) if t)
    return f"topic {topic}{said or ', all that it holds'}"


def _check_place(path: Path) -> None:
    """Whether a file can be there, asked before the work whose result it is to hold.

    Raises:
        DriftlineError: it cannot; says why.
    """
    if path.is_dir():
        raise DriftlineError(f"cannot write {path}: it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise DriftlineError(f"cannot write {path}: there is no directory {path.parent}; make it")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise DriftlineError(f"cannot write {path}: {error.strerror}") from error


class _Page:
    """The page of a replay: what it needs is gathered on the way.

    Raises DriftlineError, before anything is read, where a page cannot be made.
    """

    def __init__(self, path: Path) -> None:
        from .pages.page import require

        require()
        _check_place(path)
        self._path = path

    def begin(self, work: Any, asked: str) -> None:
        from .report.record import Record

        self._work, self._asked = work, asked
        self.record = Record(work.config, work.references)
        work.monitor.on_pane = self.record.pane

    def write(self, findings: Any) -> None:
        from .report.render import render

        text = render(self.record, findings, self._work, self._asked)
        try:
            self._path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DriftlineError(f"cannot write {self._path}: {error.strerror}") from error
        err.print(f"wrote {self._path}", highlight=False, markup=False)


class _Publisher:
    """Verdicts of a replay on their way to the drift topic, a transaction per thousand."""

    def __init__(self, config: Config) -> None:
        from .clients import Transactions, ensure_topics, instance_name

        ensure_topics(config)
        name, self._lock = instance_name(config, "replay")
        self._topic = config.topics.drift
        self._transactions = Transactions(config, name)
        self._waiting: list[dict[str, Any]] = []

    def add(self, verdict: Any) -> None:
        from .detect import verdict_message

        self._waiting.append(verdict_message(self._topic, verdict))
        if len(self._waiting) >= 1000:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._transactions.run(None, [], self._waiting)
            self._waiting = []

    def close(self) -> None:
        self._flush()
        self._lock.close()


@app.command()
def report(
    config: ConfigOption = DEFAULT_CONFIG,
    input: Annotated[
        Path | None, typer.Option(help="A JSONL, CSV or Parquet file instead of the topic.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First Kafka time of the range.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the range, not included.")] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    model: Annotated[str | None, typer.Option(help="Only this model of the file.")] = None,
) -> None:
    """Replay a range of the topic, or a file, and write a page about it: one HTML file."""
    replay(config, input, since, until, None, model, report=out)


@app.command()
def tune(
    config: ConfigOption = DEFAULT_CONFIG,
    input: Annotated[
        Path | None, typer.Option(help="A JSONL, CSV or Parquet file instead of the topic.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First Kafka time of the range.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the range, not included.")] = None,
    incidents: Annotated[
        Path | None, typer.Option(help="Known incidents, CSV: start,end,name[,features].")
    ] = None,
    panes: Annotated[list[str] | None, typer.Option(help="A pane to try; repeat for more.")] = None,
    windows: Annotated[
        list[str] | None, typer.Option(help="Windows to try together, as 5m,1h; repeat for more.")
    ] = None,
    detectors: Annotated[
        list[str] | None, typer.Option(help="Detectors to try together; repeat for more.")
    ] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            help="A level to try: 0.001 (alpha), 1 per 30d or about 1 per 30d; repeat for more."
        ),
    ] = None,
    bearable: Annotated[
        str | None,
        typer.Option(help="How often a false alarm is bearable: the choice. Default 1 per 7d."),
    ] = None,
    reference_rows: Annotated[
        Path | None, typer.Option(help="The file the reference was fitted on, to calibrate.")
    ] = None,
    events_per_hour: Annotated[
        float | None, typer.Option(min=1e-9, help="The model's rate, as for `fit`.")
    ] = None,
    calibrate: Annotated[int, typer.Option(min=0, help="So many of the best, at most.")] = 3,
    keep: Annotated[
        Path | None, typer.Option(help="Where panes are kept. Default .driftline/panes.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read the events again.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the drift that is put in.")] = 0,
    model: Annotated[str | None, typer.Option(help="Which model of the file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the best configuration.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    json: JsonOption = False,
) -> None:
    """Try hundreds of configurations over one pass of a bounded range, and rank them."""
    from .tune.command import Options, run

    loaded = load_config(config)
    chosen = loaded.models[model_of(loaded, model)]
    options = Options(
        input,
        _time(since),
        _time(until),
        incidents,
        panes or (),
        windows or (),
        detectors or (),
        budgets or (),
        bearable,
        reference_rows,
        events_per_hour,
        calibrate,
        keep,
        fresh,
        seed,
        out,
        report,
        json,
    )
    run(loaded, chosen, options, err)


@app.command()
def tail(
    what: Annotated[TailTopic, typer.Argument(help="Verdicts or alerts.")],
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str | None, typer.Option(help="From then on: a time, -1h, or beginning.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more.")] = True,
    json: JsonOption = False,
) -> None:
    """Subscribe to verdicts or alerts from the terminal."""
    from .tail import tail as run_tail

    raise typer.Exit(
        run_tail(
            load_config(config), what.value, json=json, since=since, follow=follow, out=sys.stdout
        )
    )


@app.command()
def schema(
    name: Annotated[
        str | None, typer.Argument(help="inference, label, verdict, alert or asyncapi.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Prefix of driftline's topics.")] = "driftline",
    check: Annotated[
        bool, typer.Option("--check", help="Fail when the published files are stale.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write all files into this directory.")] = None,
) -> None:
    """Print a published contract: JSON Schema, or the AsyncAPI document of the whole bus."""
    from ..schemas.generate import main as generate

    arguments = [name] if name else []
    arguments += ["--prefix", prefix]
    arguments += ["--check"] if check else []
    arguments += ["--out", str(out)] if out else []
    raise typer.Exit(generate(arguments))


@app.command()
def broker(
    port: Annotated[int | None, typer.Option(help="The port; free if not given.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data there; else removed at the end.")
    ] = None,
) -> None:
    """Run a real Apache Kafka in the foreground, without Docker."""
    from .broker.node import main as run_broker

    raise typer.Exit(run_broker(port, data_dir))


def _time(text: str | None) -> int | None:
    from ..schemas.units import parse_time_ms

    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def main() -> None:
    """Entry point: turns errors that a user can act on into one message and an exit code."""
    from .run import is_usage

    try:
        app()
    except DriftlineError as error:
        for line in str(error).splitlines():
            # Text, since a remedy such as [reference, {sliding: 7d}] would be taken for a style.
            err.print(Text.assemble(("error:", "bold red"), " ", line) if line else "")
        sys.exit(2 if is_usage(error) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has gone (`… | head`): nothing is left to say.
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
