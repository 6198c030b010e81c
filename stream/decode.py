"""From the bytes of messages to typed events.

The fast way decodes a message straight into a struct made for the configured fields, which checks
their types in passing. A message it refuses takes the slow way, which finds out what is wrong or
accepts what the fast way is too strict for (the NaN that Python's json writes).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from ..detectors.profile import Kind
from ..schemas.deadletter import Reason
from ..schemas.errors import ConfigError, EventError, show_value
from .config.document import Input

Path = tuple[str, ...]

_SCALAR: Final = str | int | float | bool | None
_TYPES: Final[Mapping[str, Any]] = {
    "numeric": float | None,
    "categorical": _SCALAR,
    "boolean": bool | int | str | None,
    "text": str | None,
    "vector": list[float] | None,
}
_EXPECTED: Final[Mapping[str, str]] = {
    "model": "a string or null",
    "version": "a string, number or null",
    "numeric": "a number or null",
    "categorical": "a string, number, boolean or null",
    "boolean": "true, false or null",
    "text": "a string or null",
    "vector": "a list of numbers or null",
}
_HEAD: Final[Mapping[str, Any]] = {
    "id": str | None,
    "ts": str | int | float | None,
    "model": str | None,
    "version": str | int | float | None,
}
# What msgspec does not take in the name of a key.
UNREADABLE: Final = re.compile(r'["\\\x00-\x1f]')
UNREADABLE_KEY: Final = (
    "a key with a quotation mark, a backslash or a control character cannot be read"
)
# Epoch milliseconds of the years 1 and 10000, what ISO-8601 timestamps can say.
_FIRST_MS: Final = -62_135_596_800_000
_END_MS: Final = 253_402_300_800_000


@dataclass(frozen=True)
class Wanted:
    """What is taken out of every event of a topic.

    features: name → kind, `prediction` and `score` included. segments: keys of the segment.
    """

    features: Mapping[str, Kind]
    segments: tuple[str, ...] = ()


class Decoder:
    """Decodes the messages of one topic.

    Raises:
        ConfigError: two fields of `input.fields` contradict each other, or a key cannot be read.
    """

    def __init__(self, source: Input, wanted: Wanted) -> None:
        self.source = source
        self.kinds = wanted.features
        fields = source.fields or {}
        self.paths: dict[str, Path] = {name: fields.get(name, (name,)) for name in _HEAD}
        types: dict[str, Any] = dict(_HEAD)
        features_at = fields.get("features", ("features",))
        segment_at = fields.get("segment", ("segment",))
        for name, kind in wanted.features.items():
            if name in ("prediction", "score"):
                path = fields.get(name, (name,))
            else:
                path = fields.get(f"features.{name}", (*features_at, name))
            self.paths[f"features.{name}"], types[f"features.{name}"] = path, _TYPES[kind]
        for name in wanted.segments:
            if name != "version":
                path = fields.get(f"segment.{name}", (*segment_at, name))
                self.paths[f"segment.{name}"], types[f"segment.{name}"] = path, _SCALAR
        for path in self.paths.values():
            if any(UNREADABLE.search(key) for key in path):
                raise ConfigError(
                    f"topic {source.topic!r}: a field is read from {show_path(path)}; "
                    f"{UNREADABLE_KEY}: rename it in the events, or leave it out"
                )
        self._types = types
        tree = _tree(self.paths, source.topic)
        self._attributes: dict[str, str] = {}
        self.event_type = self._struct(tree, types, ())
        self._decode = msgspec.json.Decoder(self.event_type).decode
        self._inner = {a.rsplit(".", 1)[0] for a in self._attributes.values() if "." in a}

    def _struct(self, tree: dict[str, Any], types: Mapping[str, Any], at: tuple[str, ...]) -> Any:
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for i, (key, node) in enumerate(tree.items()):
            attribute = f"a{i}"
            rename[attribute] = key
            where = ".".join((*at, attribute))
            if isinstance(node, str):
                self._attributes[node] = where
                fields.append((attribute, types[node], None))
            else:
                inner = self._struct(node, types, (*at, attribute))
                fields.append((attribute, inner | None, msgspec.field(default_factory=inner)))
        return msgspec.defstruct(
            "Event" + "".join(at), fields, rename=rename, gc=False, kw_only=True
        )

    def decode(
        self, values: Sequence[bytes | None]
    ) -> tuple[list[Any], list[tuple[int, EventError]]]:
        """Events in the order of `values`, None where one was refused, and the refusals."""
        limit = self.source.max_message_bytes
        errors: list[tuple[int, EventError]] = []
        try:
            if max(map(len, values), default=0) <= limit:  # type: ignore[arg-type]
                return list(map(self._decode, values)), errors  # type: ignore[arg-type]
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            pass
        events: list[Any] = []
        for i, value in enumerate(values):
            try:
                if value is None:
                    raise EventError(Reason.TOMBSTONE, "the message has no value; an event has one")
                if len(value) > limit:
                    raise EventError(
                        Reason.TOO_LARGE,
                        f"the value has {len(value)} bytes, and input.max_message_bytes is {limit}",
                    )
                try:
                    events.append(self._decode(value))
                except (ValueError, RecursionError, msgspec.MsgspecError):
                    events.append(self._decode_slowly(value))
            except EventError as error:
                events.append(None)
                errors.append((i, error))
            except RecursionError:
                # Not even what is wrong with it can be shown.
                error = EventError(
                    Reason.NOT_JSON, "the value is nested more deeply than can be read"
                )
                events.append(None)
                errors.append((i, error))
        return events, errors

    def _decode_slowly(self, value: bytes) -> Any:
        document = parse_json(value)
        if not isinstance(document, dict):
            raise EventError(
                Reason.NOT_AN_OBJECT,
                f"the value is a JSON {_json_type(document)} ({show_value(document)}); an event is "
                "an object",
            )
        try:
            return msgspec.convert(document, self.event_type)
        except (msgspec.ValidationError, OverflowError, RecursionError) as error:
            raise self._wrong_type(document, error) from None

    def _wrong_type(self, document: dict[str, Any], error: Exception) -> EventError:
        for name, path in self.paths.items():
            found: Any = document
            for depth, key in enumerate(path):
                if found is None:
                    break
                if not isinstance(found, dict):
                    where = show_path(path[:depth])
                    return EventError(
                        Reason.WRONG_TYPE,
                        f"{where} is a {_json_type(found)} ({show_value(found)}); it must be an "
                        "object, or `input.fields` must say where the values are",
                    )
                found = found.get(key)
            try:
                msgspec.convert(found, self._types[name])
            except (msgspec.ValidationError, OverflowError):
                if name == "id":
                    return EventError(
                        Reason.BAD_ID,
                        f"{show_path(path)} is {show_value(found)}; an id is a string",
                    )
                if name == "ts":
                    return _bad_time(found, path)
                head, _, feature = name.partition(".")
                is_a = f"{show_path(path)} is a {_json_type(found)} ({show_value(found)})"
                said = f"{is_a}; it must be"
                if head == "features":
                    kind = self.kinds[feature]
                    return EventError(
                        Reason.WRONG_TYPE, f"{said} {_EXPECTED[kind]}, as `{feature}` is {kind}"
                    )
                if head == "segment":
                    return EventError(Reason.BAD_SEGMENT, f"{said} {_EXPECTED['categorical']}")
                return EventError(Reason.WRONG_TYPE, f"{said} {_EXPECTED[name]}")
        return EventError(Reason.WRONG_TYPE, str(error))

    def column(self, events: Sequence[Any], name: str) -> list[Any]:
        """One field of every event: `id`, `ts`, `features.<name>`, `segment.<name>` …"""
        return list(self._over(attrgetter(self._attributes[name]), events))

    def matrix(
        self, events: Sequence[Any], names: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
        """(len(names), n) numeric features, NaN where missing, and which NaN were sent as such."""
        if not names or not events:
            return np.empty((len(names), len(events))), None
        attributes = [self._attributes[f"features.{name}"] for name in names]
        n = len(events) * len(names)
        try:
            flat = np.fromiter(chain.from_iterable(self._rows(events, attributes)), np.float64, n)
        except TypeError:
            # Not every numpy makes NaN of a null here; all do when they build from a list.
            flat = np.array(list(chain.from_iterable(self._rows(events, attributes))), np.float64)
        table = np.ascontiguousarray(flat.reshape(len(events), len(names)).T)
        empty = np.flatnonzero(np.isnan(flat))
        if len(empty) == 0:
            return table, None
        values = list(chain.from_iterable(self._rows(events, attributes)))
        sent = [i for i in empty.tolist() if values[i] is not None]
        if not sent:
            return table, None
        nan = np.zeros(n, np.bool_)
        nan[sent] = True
        return table, nan.reshape(len(events), len(names)).T

    def _rows(self, events: Sequence[Any], attributes: Sequence[str]) -> Any:
        """An iterable of one tuple per event."""
        parents = {a.rpartition(".")[0] for a in attributes}
        if len(parents) == 1:
            # All beside each other: step into their object once.
            [parent] = parents
            holders = list(self._over(attrgetter(parent), events) if parent else events)
            if not all(holders):  # a struct is true, null is not
                for event in events:
                    self._fill(event)
                holders = list(map(attrgetter(parent), events))
            inner = [a.rpartition(".")[2] for a in attributes]
            if tuple(inner) == holders[0].__struct_fields__:
                return map(msgspec.structs.astuple, holders)
            get: Callable[[Any], Any] = attrgetter(*inner)
            single = len(inner) == 1
        else:
            get, holders, single = attrgetter(*attributes), events, False
        mapped = self._over(get, holders)
        return ((v,) for v in mapped) if single else mapped

    def _over(self, get: Callable[[Any], Any], events: Sequence[Any]) -> Any:
        """`get` of every event; an object that is null is like one with nothing in it."""
        try:
            return list(map(get, events))
        except AttributeError:
            for event in events:
                self._fill(event)
            return list(map(get, events))

    def _fill(self, event: Any) -> None:
        for name in event.__struct_fields__:
            inner = getattr(event, name)
            if inner is None:
                default = _empty(type(event), name)
                if default is not None:
                    setattr(event, name, default)
            elif isinstance(inner, msgspec.Struct):
                self._fill(inner)


def _empty(owner: Any, name: str) -> Any:
    for info in msgspec.structs.fields(owner):
        if info.name == name and info.default_factory is not msgspec.NODEFAULT:
            return info.default_factory()
    return None


def _tree(paths: Mapping[str, Path], topic: str) -> dict[str, Any]:
    root: dict[str, Any] = {}
    owners: dict[Path, str] = {}
    for name, path in paths.items():
        node = root
        for depth, key in enumerate(path[:-1]):
            node = node.setdefault(key, {})
            if isinstance(node, str):
                raise _conflict(topic, name, path, node, path[: depth + 1])
        taken = node.get(path[-1])
        if taken is not None:
            other = taken if isinstance(taken, str) else owners.get(path, "another field")
            raise _conflict(topic, name, path, other, path)
        node[path[-1]] = name
        owners[path] = name
    return root


def _conflict(topic: str, name: str, path: Path, other: str, at: Path) -> ConfigError:
    return ConfigError(
        f"input.fields of topic {topic!r}: {name} is read from {show_path(path)}, but "
        f"{show_path(at)} is {other}; a place in the event can serve one field"
    )


def show_path(path: Path) -> str:
    """`$.a.b`, as in driftline.yaml."""
    return "$" + "".join(
        f".{key}" if key.replace("_", "a").isalnum() else f"[{json.dumps(key)}]" for key in path
    )


def parse_json(value: bytes) -> Any:
    """A JSON text, with the NaN and Infinity that Python's json writes.

    Raises:
        EventError: it is none.
    """
    try:
        return orjson.loads(value)
    except ValueError as strict:
        try:
            document = json.loads(value.decode("utf-8"))
            # Half a surrogate pair is no character, and nothing downstream could write it.
            json.dumps(document, ensure_ascii=False).encode()
            return document
        except (ValueError, RecursionError):
            shown = value[:40].decode("utf-8", "replace")
            raise EventError(
                Reason.NOT_JSON, f"the value is not JSON ({strict}); it begins {shown!r}"
            ) from None


def _json_type(value: Any) -> str:
    names = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        list: "list",
        dict: "object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def event_times(
    values: Sequence[Any],
) -> tuple[npt.NDArray[np.int64], list[tuple[int, EventError]]]:
    """Event times in epoch milliseconds from ISO-8601 strings or epoch milliseconds, mixed.

    Returns:
        (n,) int64 (0 where refused), and the refusals by position.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            times = np.array(values, np.int64)
            if len(times) == 0 or (times.min() >= _FIRST_MS and times.max() < _END_MS):
                return times, []
        except OverflowError:
            pass
    elif kinds == {str}:
        lengths = set(map(len, values))
        if lengths <= {20, 24} and len(lengths) == 1:
            fast = _iso_times(values, lengths.pop())
            if fast is not None:
                return fast, []
    times = np.zeros(len(values), np.int64)
    errors: list[tuple[int, EventError]] = []
    for i, value in enumerate(values):
        try:
            times[i] = event_time(value)
        except EventError as error:
            errors.append((i, error))
    return times, errors


def event_time(value: Any, path: Path = ("ts",)) -> int:
    """One event time in epoch milliseconds; a timestamp without an offset is UTC.

    Raises:
        EventError: missing_time or bad_time.

    >>> event_time("2026-11-21T08:00:00.123Z"), event_time(1795248000123)
    (1795248000123, 1795248000123)
    """
    if value is None:
        raise EventError(
            Reason.MISSING_TIME,
            f"the event has no {show_path(path)}; it must say when it happened",
        )
    if isinstance(value, bool):
        raise _bad_time(value, path)
    if isinstance(value, int | float):
        if not _FIRST_MS <= value < _END_MS:  # also false for NaN
            raise _bad_time(value, path)
        return int(value // 1)
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise _bad_time(value, path) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    ms = (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not _FIRST_MS <= ms < _END_MS:  # in UTC it may be the year 0 or 10000
        raise _bad_time(value, path)
    return ms


def _bad_time(value: Any, path: Path) -> EventError:
    return EventError(
        Reason.BAD_TIME,
        f"{show_path(path)} is {show_value(value)}; an event time is ISO-8601 "
        "(2026-11-21T08:00:00.123Z) or epoch milliseconds, in the years 1 to 9999",
    )


def _iso_times(values: Sequence[str], length: int) -> npt.NDArray[np.int64] | None:
    """Times of timestamps that are all `YYYY-MM-DDTHH:MM:SS[.mmm]Z`, None when any is not."""
    try:
        text = np.array(values, f"S{length}").view(np.uint8).reshape(len(values), length)
    except UnicodeEncodeError:
        return None
    shape = b"dddd-dd-ddTdd:dd:dd.dddZ" if length == 24 else b"dddd-dd-ddTdd:dd:ddZ"
    at = np.frombuffer(shape, np.uint8)
    is_digit = at == ord("d")
    digits = (text[:, is_digit] - ord("0")).astype(np.int64)
    if (text[:, ~is_digit] != at[~is_digit]).any() or digits.min() < 0 or digits.max() > 9:
        return None
    year = digits[:, 0] * 1000 + digits[:, 1] * 100 + digits[:, 2] * 10 + digits[:, 3]
    month, day, hour, minute, second = (
        digits[:, i] * 10 + digits[:, i + 1] for i in range(4, 14, 2)
    )
    month_start = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first = month_start.astype("datetime64[D]").astype(np.int64)
    n_days = (month_start + 1).astype("datetime64[D]").astype(np.int64) - first
    valid = (
        (year >= 1)
        & (month >= 1)
        & (month <= 12)
        & (day >= 1)
        & (day <= n_days)
        & (hour < 24)
        & (minute < 60)
        & (second < 60)
    )
    if not valid.all():
        return None
    seconds = (first + day - 1) * 86_400 + hour * 3600 + minute * 60 + second
    if length == 20:
        return seconds * 1000
    return seconds * 1000 + digits[:, 14] * 100 + digits[:, 15] * 10 + digits[:, 16]
