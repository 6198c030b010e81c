"""What kind of feature a column of values is, and what is better left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ...schemas.inference import event_time_ms

# Fewer values than this say nothing about identifiers and free text.
ENOUGH = 50

ID_VALUE = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}")
_ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|ref|number|no|hash|token|ip|email|phone|iban)$")
_TIME_NAME = re.compile(r"(^|_)(ts|time|timestamp|date|datetime|at)(_ms)?$")
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_EPOCH_UNITS = (("seconds", 1e9, 1e10), ("ms", 1e11, 1e13), ("µs", 1e14, 1e16), ("ns", 1e17, 1e19))


def plain(key: str) -> str:
    """`requestTime`, `request-time` and `Request_Time` as `request_time`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return re.sub(r"[\s\-.]+", "_", snake).lower()


def time_unit(values: Sequence[Any]) -> str:
    """`iso`, `ms`, `seconds`, `µs` or `ns`: what nine of ten values are; "" where none is."""
    units: Counter[str] = Counter()
    for value in values:
        units[_unit_of(value)] += 1
    if not units:
        return ""
    unit, count = units.most_common(1)[0]
    return unit if unit and count >= 0.9 * len(values) else ""


def _unit_of(value: Any) -> str:
    if isinstance(value, str):
        try:
            event_time_ms(value)
        except ValueError:
            return ""
        return "iso"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return next((unit for unit, least, most in _EPOCH_UNITS if least <= value < most), "")
    return ""


def feature_kind(name: str, values: Sequence[Any]) -> tuple[str | None, str]:
    """(kind, remark) of a feature with these values, or (None, why it is left out)."""
    if not values:
        return None, "missing in every event of the sample"
    types = {
        bool if isinstance(v, bool) else float if isinstance(v, int) else type(v) for v in values
    }
    if list in types:
        return _list(values)
    if dict in types:
        return None, "an object in some events and a value in others"
    if len(types) > 1:
        return None, "numbers, texts and booleans are mixed"
    distinct = len(set(values))
    if types == {bool}:
        kind, remark = "boolean", ""
    elif types == {float}:
        kind, remark = _numeric(name, values, distinct)
    else:
        kind, remark = _text(name, values, distinct)
    if kind is not None and distinct == 1:
        same = "the same value in every event of the sample: watched for any other"
        remark = f"{remark}; {same}" if remark else same
    return kind, remark


def _list(values: Sequence[Any]) -> tuple[str | None, str]:
    lists = [v for v in values if isinstance(v, list)]
    numbers = all(type(x) in (int, float) for v in lists for x in v)
    if not numbers or len(lists) < len(values):
        return None, "a list that is no vector: driftline monitors lists of numbers only"
    lengths = {len(v) for v in lists}
    if len(lengths) > 1 or lengths <= {0, 1}:
        shown = ", ".join(map(str, sorted(lengths)[:3]))
        return None, f"lists of {shown} numbers; a vector always has the same number, two or more"
    return "vector", f"{lengths.pop()} numbers"


def _numeric(name: str, values: Sequence[Any], distinct: int) -> tuple[str | None, str]:
    n = len(values)
    whole = all(float(v).is_integer() for v in values)
    if set(values) == {0, 1}:
        return "boolean", "only 0 and 1"
    if _TIME_NAME.search(plain(name)) and time_unit(values):
        return None, "a point in time, which moves on by itself"
    if whole and n >= ENOUGH and distinct >= 0.95 * n:
        rising = sum(a < b for a, b in pairwise(values))
        if _ID_NAME.search(plain(name)) or rising >= 0.95 * (n - 1):
            return None, "an identifier or counter: nearly every value is different"
    if whole and _ID_NAME.search(plain(name)):
        if distinct <= 100:
            return "categorical", "a number that names something"
        return None, "an identifier: many different numbers that name something"
    return "numeric", ""


def _text(name: str, values: Sequence[str], distinct: int) -> tuple[str | None, str]:
    n = len(values)
    many = n >= ENOUGH and distinct > 0.5 * n
    if many and sum(bool(ID_VALUE.fullmatch(v)) for v in values) >= 0.9 * n:
        return None, "an identifier: nearly every value is different"
    if time_unit(values) == "iso" and (many or _TIME_NAME.search(plain(name))):
        return None, "a point in time, which moves on by itself"
    if sum(bool(_NUMBER.fullmatch(v)) for v in values) >= 0.9 * n and distinct > 20:
        return None, "numbers written as text: let the producer write numbers"
    words = sum(len(v.split()) for v in values) / n
    if words >= 4 and distinct > 0.2 * n:
        return None, "free text: with `text` as its kind its meaning is monitored (docs/text.md)"
    if many:
        return None, "nearly every value is different: an identifier, a name or free text"
    if distinct > 1000:
        return None, f"{distinct} different values in the sample are too many for categories"
    return "categorical", ""
