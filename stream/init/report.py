"""Findings of `driftline init` as a commented driftline.yaml, and as a page in the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...schemas.errors import ABSENT, ConfigError, Problem, TopicError
from ...schemas.units import format_duration
from ..config.kafka import SECRET
from ..config.values import format_path, model_name
from .findings import Findings, ModelFinding

COMMENT_COLUMN = 36
# Words that some YAML reader takes for something else than themselves.
_SPECIAL = re.compile(r"(?i)true|false|yes|no|on|off|y|n|null|~")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*|\$(\.[A-Za-z_][A-Za-z0-9_]*)+", re.ASCII)


def write(findings: Findings, path: Path, *, force: bool = False) -> None:
    """Write the proposed configuration to `path`.

    Raises ConfigError where the file exists (unless `force`) or cannot be written, TopicError where
    the topic's format is not supported, so that no configuration could work.
    """
    text = compose(findings)
    if path.exists() and not force:
        raise ConfigError([_refused(path, "the file exists", "name another, or use --force")])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Written beside and renamed, so that a full disk does not cost the former file.
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        rule = f"the file cannot be written: {error.strerror}"
        raise ConfigError([_refused(path, rule, "name another place")]) from None


def _refused(path: Path, rule: str, remedy: str) -> Problem:
    return Problem("", None, ABSENT, rule, remedy, str(path))


def compose(findings: Findings) -> str:
    """The text of the proposed driftline.yaml. Raises TopicError as `write` does."""
    form = findings.format
    if findings.mapped is None or findings.suggestion is None:
        raise TopicError(
            f"topic {findings.topic!r}: {_share(form.share)} of the sampled messages look like"
            f" {form.name} ({form.sure}: {form.why}), which this version does not read;"
            f" {form.remedy}"
        )
    return "\n".join(_lines(findings)) + "\n"


def _lines(findings: Findings) -> Iterator[str]:
    mapped, suggestion = findings.mapped, findings.suggestion
    assert mapped is not None
    assert suggestion is not None
    yield (
        f"# Proposed by `driftline init` from {findings.sampled:,} of about {findings.total:,}"
        f" messages in topic {findings.topic}."
    )
    yield "# Names and kinds are guesses from that sample: read them before you rely on them."
    for note in (*_problems(findings), *mapped.notes):
        yield f"# CHECK: {_printable(note)}"
    yield ""
    yield "kafka:"
    for name, value in findings.kafka.items():
        text = _quoted(value) if isinstance(value, str) else str(value).lower()
        hint = "from the environment" if SECRET.search(name) else ""
        yield _commented(f"  {_quoted(name)}: {text}", hint)
    yield ""
    single = len(findings.models) == 1
    if single:
        yield from _model_line(findings.models[0], findings.topic)
    yield "input:"
    yield f"  topic: {findings.topic}"
    form = findings.format
    yield _commented("  format: json", f"{form.why}: {_share(form.share)} of the sample")
    if suggestion.max_ahead != "1h":
        yield f"  max_ahead: {suggestion.max_ahead}"
    if mapped.preferred:
        yield "  # fields: not needed, the events are as driftline expects them"
    else:
        yield "  fields:"
        for name, keys in mapped.moved().items():
            usable = name != "ts" or mapped.time_unit in ("iso", "ms")
            line = f"{_quoted(name)}: {_quoted(format_path(keys))}"
            hint = "" if usable else f"in {mapped.time_unit}, which driftline does not read"
            yield _commented(f"    {line}" if usable else f"    # {line}", hint)
        if set(mapped.moved()) == {"ts"} and mapped.time_unit not in ("iso", "ms"):
            yield "    {}"
    yield ""
    yield _commented("reference: ./reference", "`driftline fit` writes it")
    yield f"pane: {suggestion.pane}"
    yield _commented(f"windows: [{', '.join(suggestion.windows)}]", suggestion.why_windows)
    late = f"allowed_lateness: {suggestion.allowed_lateness}"
    yield _commented(late, suggestion.why_lateness)
    if suggestion.retention != "7d":
        yield f"retention: {suggestion.retention}"
    for name in ("prediction", "score"):
        if name in mapped.paths:
            yield _commented(f"{name}: auto", format_path(mapped.paths[name]))
        else:
            yield _commented(f"{name}: off", "no field of the events looks like one")
    few = [(name, n) for name, n in findings.segments if 2 <= n <= 50]
    for name, n in few:
        yield f"# segment_by: [{_quoted(name)}]  # {n} values: monitor each on its own too"
    budget = f"false_alarms: {suggestion.false_alarms}"
    yield _commented(
        budget, "how often the whole model may alarm for nothing; fit finds the levels"
    )
    yield _commented(
        "# alpha: 0.01", "in its place: level of one look, at once, no promise of a rate"
    )
    yield ""
    if single:
        yield from _features(findings.models[0], "")
    else:
        yield "models:"
        for model in findings.models:
            if problem := _name_problem(model.name or ""):
                yield f"  # {_printable(model.name or '')}: left out, {problem}"
                continue
            yield _commented(f"  {_quoted(model.name or '')}:", f"{model.events:,} events")
            yield from _features(model, "    ")


def _model_line(model: ModelFinding, topic: str) -> Iterator[str]:
    name, hint = model.name, ""
    if name is None:
        name, hint = topic, "the events do not name their model; call it as you like"
    elif problem := _name_problem(name):
        name, hint = topic, f"the events' own name cannot be used: {problem}"
    yield _commented(f"model: {_quoted(name)}", hint)


def _name_problem(name: str) -> str:
    try:
        model_name(name)
    except ValueError:
        return "a model's name has 1 to 200 characters, without | and ="
    return ""


def _features(model: ModelFinding, indent: str) -> Iterator[str]:
    if not any(feature.kind for feature in model.features):
        yield f"{indent}features: {{}}"
    else:
        yield f"{indent}features:"
    for feature in model.features:
        missing = f"missing in {_share(feature.missing)}" if feature.missing else ""
        if feature.kind:
            hint = "; ".join(part for part in (feature.reason, missing) if part)
            yield _commented(f"{indent}  {_quoted(feature.name)}: {feature.kind}", hint)
        else:
            yield f"{indent}  # {_printable(feature.name)}: left out, {feature.reason}"


def _problems(findings: Findings) -> Iterator[str]:
    if findings.not_json:
        yield (
            f"{findings.not_json:,} of {findings.sampled:,} sampled messages are not JSON objects"
            " and will go to the dead-letter topic"
        )
    if findings.lag is not None and findings.lag.min_ms < -1000:
        yield (
            f"some events say they come from {format_duration(-findings.lag.min_ms)} after their"
            " Kafka timestamp: a producer's clock is ahead"
        )
    for name in findings.kafka:
        if SECRET.search(name):
            yield f"the value of {name} is taken from the environment: {findings.kafka[name]}"
    if "bootstrap.servers" not in findings.kafka:
        yield "bootstrap.servers is missing below kafka"


def _quoted(text: str) -> str:
    """`text` as a YAML scalar that every reader takes for this text."""
    if _PLAIN.fullmatch(text) and not _SPECIAL.fullmatch(text):
        return text
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 20)
    return dumped.strip()


def _printable(text: str) -> str:
    """`text` for a comment: on one line, and without what YAML forbids even there."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 400 else f"{shown[:399]}…"


def _commented(line: str, comment: str) -> str:
    return f"{line:<{COMMENT_COLUMN}}  # {_printable(comment)}" if comment else line


def _share(share: float) -> str:
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"


def show(findings: Findings, console: Console) -> None:
    """Print the findings for a person."""
    form, keys = findings.format, findings.keys
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    facts.add_column()

    def fact(name: str, text: str) -> None:
        facts.add_row(name, escape(_printable(text)))

    fact("topic", f"{findings.topic}, partitions: {findings.partitions}")
    fact("messages", f"about {findings.total:,}, of which {findings.sampled:,} were looked at")
    fact("format", f"{form.name} ({form.sure}, {_share(form.share)}): {form.why}")
    if findings.tombstones:
        fact("", f"{findings.tombstones:,} without a value (tombstones)")
    if not keys.share:
        fact("keys", "none")
    else:
        same = f", equal to {format_path(keys.same_as)}" if keys.same_as is not None else ""
        split = f"; {keys.split:,} on more than one partition" if keys.split else ""
        fact("keys", f"in {_share(keys.share)}, {keys.distinct:,} different{same}{split}")
    mapped, suggestion = findings.mapped, findings.suggestion
    if mapped is not None:
        for name, path in mapped.paths.items():
            fact(name, format_path(path))
    if findings.lag is not None:
        lag = findings.lag
        clock = "the broker's clock" if findings.log_append_time else "the producer's clock"
        fact(
            "lag",
            f"event time to Kafka timestamp ({clock}): median {format_duration(lag.median_ms)},"
            f" 99 % {format_duration(lag.p99_ms)}, at most {format_duration(lag.max_ms)}",
        )
    if findings.disorder:
        worst = max(findings.disorder, key=lambda item: (item[1].p99_ms, item[1].max_ms))
        fact(
            "disorder",
            f"worst in partition {worst[0]}: {_share(worst[1].share)} behind an earlier event,"
            f" 99 % by at most {format_duration(worst[1].p99_ms)},"
            f" all by at most {format_duration(worst[1].max_ms)}",
        )
    if findings.rate_per_s is not None:
        fact("rate", f"about {findings.rate_per_s:,.3g} events/s")
    if suggestion is not None:
        fact(
            "suggested",
            f"pane {suggestion.pane}, windows {', '.join(suggestion.windows)}, allowed_lateness"
            f" {suggestion.allowed_lateness}",
        )
    console.print(facts)
    for model in findings.models:
        console.print(_feature_table(model))
    if mapped is not None:
        for note in (*_problems(findings), *mapped.notes):
            console.print(f"[bold yellow]check[/] {escape(_printable(note))}")
    elif form.remedy:
        console.print(f"[bold red]not readable[/] {escape(_printable(form.remedy))}")


def _feature_table(model: ModelFinding) -> Table:
    title = f"{model.name or 'features'} ({model.events:,} events)"
    table = Table(title=escape(_printable(title)), title_justify="left")
    table.add_column("feature", overflow="fold")
    table.add_column("kind")
    table.add_column("missing", justify="right")
    table.add_column("values", justify="right")
    table.add_column("remark")
    for feature in model.features:
        table.add_row(
            escape(_printable(feature.name)),
            feature.kind or "[dim]left out[/]",
            _share(feature.missing),
            f"{feature.distinct:,}",
            escape(feature.reason),
        )
    return table
