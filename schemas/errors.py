"""The errors driftline raises on purpose.

    DriftlineError
    ├── ConfigError      driftline.yaml is wrong
    ├── ProfileError     a reference profile cannot be made, read or used
    ├── BrokerError      the embedded broker
    ├── TopicError       a topic is missing, or configured so that guarantees break
    ├── EventError       one message cannot be used: it becomes a dead letter
    └── EncodingError    some texts or vectors of a batch cannot be used; the others can

Anything else that escapes is a bug in driftline or in a library below it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final


class DriftlineError(Exception):
    """An error a user can act on; its text names the value, the rule, the place and the remedy.

    `retry` is true where the same call may succeed later with nothing changed.
    """

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retry = retry

    def __str__(self) -> str:
        return self.message


class Absent(enum.Enum):
    """Stands for "there is no value", which `None` (YAML's `null`) does not."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file.

    path: the place inside the file, `models.fraud.windows[2]`, "" for the file as a whole.
    line: 1-based line number, None where there is none (a missing file, an override).
    value: the offending value; `ABSENT` where the mistake is that there is none.
    rule: what must hold, a clause without a full stop.
    remedy: what to write instead, a clause without a full stop.
    file: name of the file, as the user gave it.
    """

    path: str
    line: int | None
    value: object
    rule: str
    remedy: str
    file: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        head = ": ".join(part for part in (place, self.path) if part)
        shown = "" if self.value is ABSENT else f"{show_value(self.value)}: "
        remedy = f"; {self.remedy}" if self.remedy else ""
        text = f"{shown}{self.rule}{remedy}"
        return f"{head}: {text}" if head else text


def show_value(value: object, limit: int = 80) -> str:
    """`value` as a user would recognise it from YAML or JSON, at most `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ConfigError(DriftlineError):
    """driftline.yaml is wrong; `problems` holds every mistake found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = [Problem("", None, ABSENT, problems, "")]
        self.problems: list[Problem] = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProfileError(DriftlineError):
    """A reference profile cannot be made, read or used."""


class BrokerError(DriftlineError):
    """The embedded broker cannot be resolved, started or stopped."""


class TopicError(DriftlineError):
    """A topic is missing, or configured so that driftline's guarantees would not hold."""


class EventError(DriftlineError):
    """One message cannot be used.

    reason: a short code (`not_json`, `bad_timestamp`, …) for headers, counters and filters.
    message: the sentence for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EncodingError(DriftlineError):
    """Some texts of a batch have no vector, or some vectors cannot be reduced.

    failures: position in the batch → why, a clause. The other positions can be given again alone.
    """

    def __init__(self, failures: Mapping[int, str], n: int) -> None:
        self.failures: dict[int, str] = dict(sorted(failures.items()))
        shown = "; ".join(f"number {i}: {why}" for i, why in [*self.failures.items()][:3])
        more = "; …" if len(self.failures) > 3 else ""
        super().__init__(
            f"{len(self.failures)} of {n} texts or vectors cannot be used: {shown}{more}; give the "
            "others without them"
        )
