"""Known incidents: a CSV file of `start,end,name[,features]`."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.errors import ABSENT, ConfigError, Problem
from ...schemas.units import iso_ms, parse_time_ms
from ..config.values import nearest

COLUMNS: Final = ("start", "end", "name", "features")


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that was wrong in [start, end). features: where it must be seen, empty for
    anywhere."""

    start_ms: int
    end_ms: int
    name: str
    features: tuple[str, ...] = ()


def read_incidents(path: Path, known: Collection[str]) -> tuple[Incident, ...]:
    """The incidents of a file, in order of time.

    Args:
        known: names of the features that there are.

    Raises:
        ConfigError: with every mistake: its line, the value, the rule and what to write.
    """
    problems: list[Problem] = []

    def wrong(line: int | None, column: str, value: object, rule: str, remedy: str) -> None:
        problems.append(Problem(column, line, value, rule, remedy, str(path)))

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            [Problem("", None, ABSENT, "there is no such file", "check --incidents", str(path))]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        rule = f"cannot be read as UTF-8 text ({error})"
        raise ConfigError(
            [Problem("", None, ABSENT, rule, "save it as CSV in UTF-8", str(path))]
        ) from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    example = "begin the file with the line start,end,name"
    for name in COLUMNS[:3]:
        if name not in header:
            wrong(
                1, "", ",".join(header) if header else ABSENT, f"column {name} is missing", example
            )
    for name in header:
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            remedy = f"write {near}" if near else "remove it"
            wrong(1, "", name, f"the columns are {', '.join(COLUMNS)}", remedy)
    if problems:
        raise ConfigError(problems)
    reader.fieldnames = header
    found: list[Incident] = []
    for row in reader:
        line = reader.line_num
        extra = row.pop(None, None)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if extra or any(row[name] is None for name in COLUMNS[:3]):
            n = sum(value is not None for value in row.values()) + len(extra or ())
            remedy = "write one value per column; in quotes where it has a comma"
            wrong(line, "", n, f"the line has another number of values than {len(header)}", remedy)
            continue
        times: dict[str, int] = {}
        for column in ("start", "end"):
            value = row[column].strip()
            try:
                if value.startswith("-") or value == "now":
                    raise ValueError("a time relative to now means another one tomorrow")
                times[column] = parse_time_ms(value)
            except ValueError:
                rule = "a time is ISO-8601 or epoch milliseconds"
                wrong(line, column, value, rule, "write for example 2026-11-21T08:00:00Z")
        if len(times) == 2 and times["end"] <= times["start"]:
            rule = f"an incident ends after its start, {iso_ms(times['start'])}"
            wrong(line, "end", row["end"].strip(), rule, "write a later time; the end is exclusive")
        name = row["name"].strip()
        if not name:
            wrong(line, "name", name, "an incident has a name", "write one")
        features = tuple((row.get("features") or "").replace(";", " ").split())
        for feature in features:
            if feature not in known:
                near = nearest(feature, known)
                rule = f"the reference has no such feature; it has {', '.join(sorted(known))}"
                wrong(line, "features", feature, rule, f"write {near}" if near else "remove it")
        if len(times) == 2:
            found.append(Incident(times["start"], times["end"], name, features))
    if not problems and not found:
        wrong(
            None, "", ABSENT, "the file lists no incident", "add a line, or leave --incidents out"
        )
    if problems:
        raise ConfigError(problems)
    return tuple(sorted(found, key=lambda i: (i.start_ms, i.end_ms, i.name)))
