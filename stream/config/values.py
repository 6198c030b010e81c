"""How a single value of driftline.yaml is read, and how what is wrong with it is reported."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from ...schemas.units import (
    FalseAlarms,
    format_duration,
    parse_bytes,
    parse_duration_ms,
    parse_false_alarms,
)

TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
MAX_PREFIX = 235
_STEP = re.compile(r"""\.([^.\[\]"'\s]+)|\[("(?:[^"\\]|\\.)*")\]""")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a value; `at` is the place below that value (() is the value itself)."""

    at: tuple[str | int, ...]
    value: object
    rule: str
    remedy: str


def mistaken(*mistakes: Mistake) -> PydanticCustomError:
    """The exception by which a validator reports any number of mistakes at once."""
    text = "; ".join(f"{mistake.rule} ({mistake.remedy})" for mistake in mistakes)
    # pydantic formats the template with `ctx`, so braces in a rule must not be placeholders.
    return PydanticCustomError("driftline", "{text}", {"text": text, "mistakes": list(mistakes)})


def nearest(value: object, known: Iterable[str]) -> str:
    """The name in `known` that `value` was most likely meant to be, "" where none is near."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(value).lower(), names, 1, cutoff=0.6)
    return names[close[0]] if close else ""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


# Readers of single values, for `BeforeValidator`. Each raises what `mistaken` makes.


def wrong(value: object, rule: str, remedy: str) -> Exception:
    return mistaken(Mistake((), value, rule, remedy))


def duration(least_ms: int, example: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        try:
            ms = parse_duration_ms(value)
        except ValueError as error:
            raise wrong(value, str(error), f"write for example {example}") from None
        if ms < least_ms:
            raise wrong(value, f"must be at least {format_duration(least_ms)}", f"write {example}")
        return ms

    return check


def size_bytes(value: object) -> int:
    try:
        size = parse_bytes(value)
    except ValueError as error:
        raise wrong(value, str(error), "write for example 1MiB") from None
    if size < 1:
        raise wrong(value, "must be at least 1 byte", "write for example 1MiB")
    return size


def integer(least: int, most: int, example: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            rule = f"must be a whole number from {least:,} to {most:,}"
            raise wrong(value, rule, f"write for example {example}")
        return value

    return check


def one_of(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        # YAML 1.1, and Python overrides, may say `off` as a boolean.
        if value is False and "off" in choices:
            return "off"
        if value not in choices or not isinstance(value, str):
            near = nearest(value, choices)
            remedy = f"write {near}" if near else f"write for example {choices[0]}"
            only = ", the only choice in this version" if len(choices) == 1 else ""
            raise wrong(value, f"must be one of {', '.join(choices)}{only}", remedy)
        return value

    return check


def topic_name(value: object) -> str:
    """Kafka's own rule (`Topic.validate`)."""
    if not isinstance(value, str) or not TOPIC_NAME.fullmatch(value) or value in (".", ".."):
        rule = "a topic name has 1 to 249 of the characters a-z A-Z 0-9 . _ -"
        raise wrong(value, rule, "write the name of a topic, such as inference")
    return value


def topic_prefix(value: object) -> str:
    prefix = topic_name(value)
    if len(prefix) > MAX_PREFIX:
        rule = f"a prefix has at most {MAX_PREFIX} characters, so that .dead-letters fits behind it"
        raise wrong(value, rule, "write a shorter one")
    return prefix


def plain_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s|=]{1,200}", value):
        rule = "a name is a text of 1 to 200 characters, without spaces, | and ="
        raise wrong(value, rule, "write for example driftline")
    return value


def model_name(value: object) -> str:
    """As producers write it into their events, so what they may have chosen is taken.

    `|` and `=` join names and segments in the keys of verdicts.
    """
    fits = isinstance(value, str) and value == value.strip() and value.isprintable()
    if not isinstance(value, str) or not fits or not re.fullmatch(r"[^|=]{1,200}", value):
        rule = "a model's name is a text of 1 to 200 characters, without | and ="
        quoted = isinstance(value, int | float)
        raise wrong(value, rule, f'write "{value}"' if quoted else "write for example fraud")
    return value


def level(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        rule = "alpha is a probability between 0 and 1, both excluded"
        raise wrong(value, rule, "write for example 0.01")
    return float(value)


def budget(value: object) -> FalseAlarms:
    try:
        return parse_false_alarms(value)
    except ValueError as error:
        raise wrong(value, str(error), "write for example 1 per 30d") from None


def slot_count(value: object) -> int | str:
    if value == "exact" or (type(value) is int and 100 <= value <= 10_000_000):
        return value  # pyright: ignore[reportReturnType]
    rule = "slots is `exact`, or the number of quantile slots, at least 100"
    raise wrong(value, rule, "write exact, or for example 10000")


def parse_path(text: object) -> tuple[str, ...]:
    """The keys of a path from the root of an event: `$.request["user.id"]` → (request, user.id).

    `$` alone is the event itself: (). Raises ValueError with the rule.
    """
    if not isinstance(text, str) or not text.startswith("$"):
        raise ValueError("a path begins with $, the event: $.request.uuid")
    keys: list[str] = []
    at = 1
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            if re.match(r"\[\d+\]", text[at:]):
                raise ValueError("a path cannot go into arrays")
            raise ValueError('a path is $ and keys, $.request.uuid or $.request["user.id"]')
        keys.append(step[1] if step[1] is not None else json.loads(step[2]))
        at = step.end()
    return tuple(keys)


def format_path(keys: tuple[str, ...]) -> str:
    """The text `parse_path` reads back as `keys`."""
    steps = (f".{k}" if _STEP.fullmatch(f".{k}") else f"[{json.dumps(k)}]" for k in keys)
    return "$" + "".join(steps)
