"""From bytes to typed columns: what is taken, and what each refusal says."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.schemas.errors import ConfigError, EventError
from driftline.stream.config.document import Input, ModelConfig
from driftline.stream.decode import Decoder, Wanted, event_time, event_times, parse_json
from driftline.stream.fit import collect, fit_rows
from driftline.stream.profiles import Reference
from driftline.stream.summarise import Messages, Summariser, Summary

WANTED = Wanted({"x": "numeric", "c": "categorical", "b": "boolean"}, ("country",))
TS = 1_795_248_000_123
TS_TEXT = "2026-11-21T08:00:00.123Z"


def decoder(wanted: Wanted = WANTED, **section: Any) -> Decoder:
    return Decoder(Input.model_validate({"topic": "inference", **section}), wanted)


def taken(value: bytes, of: Decoder | None = None) -> dict[str, Any]:
    """The columns of one event that must be taken."""
    of = of or decoder()
    [event], errors = of.decode([value])
    assert errors == []
    return {name: of.column([event], name)[0] for name in of.paths}


def refused(value: bytes | None, of: Decoder | None = None) -> EventError:
    [event], [(at, error)] = (of or decoder()).decode([value])
    assert (event, at) == (None, 0)
    return error


def features(text: str) -> bytes:
    return b'{"id":"a","ts":1,"features":' + text.encode() + b"}"


REFUSALS: dict[str, tuple[bytes | None, str, tuple[str, ...]]] = {
    "tombstone": (None, "tombstone", ("no value",)),
    "too large": (
        b'{"id":"%s"}' % (b"a" * 1_048_576), "too_large",
        ("1048585 bytes", "input.max_message_bytes is 1048576"),
    ),
    "empty": (b"", "not_json", ("begins ''",)),
    "no JSON": (b"{broken", "not_json", ("begins '{broken'",)),
    "cut": (b'{"id":"a","ts":1', "not_json", ("begins",)),
    "more after it": (b'{"id":"a"} {}', "not_json", ("begins",)),
    "binary": (bytes(range(256)), "not_json", ("begins",)),
    "UTF-16": ('{"id":"a"}'.encode("utf-16"), "not_json", ("begins",)),
    "BOM": (b'\xef\xbb\xbf{"id":"a"}', "not_json", ("BOM",)),
    "bytes that are no UTF-8": (b'{"id":"\xff"}', "not_json", ("UTF-8",)),
    "half a surrogate pair": (features('{"c":"\\ud800"}'), "not_json", ("surrogate",)),
    "half a pair beside NaN": (features('{"x":NaN,"c":"\\udfff"}'), "not_json", ("begins",)),
    "single quotes": (b"{'id': 'a'}", "not_json", ("begins",)),
    "array": (b"[1,2]", "not_an_object", ("list ([1, 2])", "an event is an object")),
    "text": (b'"event"', "not_an_object", ('string ("event")',)),
    "null": (b"null", "not_an_object", ("null (null)",)),
    "number": (b"17", "not_an_object", ("number (17)",)),
    "too deep to show": (b"[" * 1000 + b"]" * 1000, "not_json", ("nested more deeply",)),
    "too deep to read": (b"[" * 100_000, "not_json", ("begins",)),
    "too deep inside": (
        features('{"x":' + '{"a":' * 995 + "1" + "}" * 995 + "}"), "not_json", ("nested",)
    ),
    "deep": (features('{"x":' + "[" * 500 + "]" * 500 + "}"), "wrong_type", ("$.features.x", "…")),
    "id a number": (b'{"id":7,"ts":1}', "bad_id", ("$.id is 7", "an id is a string")),
    "id a list": (b'{"id":["a"],"ts":1}', "bad_id", ('$.id is ["a"]',)),
    "time a list": (b'{"id":"a","ts":[1]}', "bad_time", ("$.ts is [1]", "ISO-8601")),
    "time a boolean": (b'{"id":"a","ts":true}', "bad_time", ("$.ts is true",)),
    "model a number": (
        b'{"id":"a","model":7}', "wrong_type", ("$.model is a number (7)", "be a string or null"),
    ),
    "version a boolean": (
        b'{"id":"a","version":true}', "wrong_type",
        ("$.version is a boolean (true)", "must be a string, number or null"),
    ),
    "text in numeric": (
        features('{"x":"12.5"}'), "wrong_type",
        ('$.features.x is a string ("12.5")', "a number or null", "`x` is numeric"),
    ),
    "boolean in numeric": (
        features('{"x":true}'), "wrong_type", ("$.features.x is a boolean (true)", "is numeric"),
    ),
    "object in numeric": (features('{"x":{}}'), "wrong_type", ("$.features.x is a object ({})",)),
    "list in categorical": (
        features('{"c":["a"]}'), "wrong_type",
        ('$.features.c is a list (["a"])', "string, number, boolean or null", "is categorical"),
    ),
    "float in boolean": (
        features('{"b":0.5}'), "wrong_type", ("$.features.b is a number (0.5)", "is boolean"),
    ),
    "features a list": (features("[1]"), "wrong_type", ("$.features is a list ([1])", "object")),
    "segment a text": (b'{"id":"a","segment":"ES"}', "wrong_type", ("$.segment is a string",)),
    "segment of a list": (
        b'{"id":"a","segment":{"country":["ES"]}}', "bad_segment",
        ('$.segment.country is a list (["ES"])', "string, number, boolean or null"),
    ),
    "whole number beyond floats": (
        features('{"x":1' + "0" * 400 + "}"), "wrong_type", ("$.features.x is a number (1000", "…"),
    ),
    "number beyond Python": (features('{"x":1' + "0" * 5000 + "}"), "not_json", ("begins",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_reason_place_value_and_rule(name: str) -> None:
    value, reason, says = REFUSALS[name]
    error = refused(value)
    assert error.reason == reason, error.message
    for part in says:
        assert part in error.message
    assert len(error.message) < 400


def test_every_refusal_at_once_spares_the_events_between() -> None:
    of = decoder()
    good = b'{"id":"good","ts":1,"features":{"x":1}}'
    values: list[bytes | None] = []
    for value, _, _ in REFUSALS.values():
        values += [good, value]
    events, errors = of.decode(values)
    assert [i for i, _ in errors] == list(range(1, len(values), 2))
    assert [e.reason for _, e in errors] == [reason for _, reason, _ in REFUSALS.values()]
    assert of.column(events[::2], "id") == ["good"] * len(REFUSALS)
    assert events[1::2] == [None] * len(REFUSALS)


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "features absent": ("", {}),
    "features null": ('"features":null', {}),
    "segment null": ('"segment":null', {}),
    "all missing": ('"features":{"x":null,"c":null,"b":null}', {}),
    "NaN": ('"features":{"x":NaN,"c":"a"}', {"features.x": "NaN", "features.c": "a"}),
    "Infinity": ('"features":{"x":Infinity}', {"features.x": math.inf}),
    "-Infinity": ('"features":{"x":-Infinity}', {"features.x": -math.inf}),
    "1e999": ('"features":{"x":1e999}', {"features.x": math.inf}),
    "-1e999": ('"features":{"x":-1e999,"c":1e999}',
               {"features.x": -math.inf, "features.c": math.inf}),
    "64 bits": ('"features":{"x":18446744073709551615}', {"features.x": 2.0**64}),
    "30 digits": ('"features":{"x":123456789012345678901234567890}', {"features.x": float(
        123456789012345678901234567890)}),
    "30 digits as a category": (
        '"features":{"c":123456789012345678901234567890}',
        {"features.c": 123456789012345678901234567890},
    ),
    "30 digits beside NaN": (
        '"features":{"x":NaN,"c":123456789012345678901234567890}',
        {"features.x": "NaN", "features.c": 123456789012345678901234567890},
    ),
    "duplicate keys: the last": (
        '"features":{"x":1,"x":2},"model":"m","model":"n"', {"features.x": 2.0, "model": "n"},
    ),
    "duplicate keys: the first is wrong": ('"model":7,"model":"n"', {"model": "n"}),
    "duplicate objects: the last": (
        '"features":{"x":1},"features":{"c":"q"}', {"features.c": "q"}
    ),
    "whatever else": ('"other":[1,{"a":null}],"features":{"y":"?","x":1}', {"features.x": 1.0}),
    "a pair of surrogates": ('"features":{"c":"\\ud83d\\ude00"}', {"features.c": "😀"}),
    "numbers and booleans as categories": (
        '"features":{"c":3,"b":1},"segment":{"country":true}',
        {"features.c": 3, "features.b": 1, "segment.country": True},
    ),
    "a version that is a number": ('"version":7', {"version": 7}),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    text, expected = TAKEN[name]
    value = b'{"id":"a","ts":1' + ("," + text if text else "").encode() + b"}"
    found = taken(value)
    for field, got in found.items():
        wanted = {"id": "a", "ts": 1, **expected}.get(field)
        if wanted == "NaN":
            assert math.isnan(got)
        else:
            assert (got, type(got)) == (wanted, type(wanted)), field


def test_the_largest_message_is_taken() -> None:
    of = decoder(max_message_bytes="1kB")
    value = b'{"id":"%s"}' % (b"a" * 991)
    assert len(value) == 1000
    assert taken(value, of)["id"] == "a" * 991
    assert refused(value + b" ", of).reason == "too_large"
    # Also where another one sends the batch the slow way.
    events, errors = of.decode([value, b"{", value + b" "])
    assert [e is None for e in events] == [False, True, True]
    assert [e.reason for _, e in errors] == ["not_json", "too_large"]


# Where fields are.


def test_nested_paths() -> None:
    of = decoder(fields={
        "id": "$.request.uuid", "ts": "$.request.at", "model": "$.meta.model",
        "features": "$.input.values", "features.c": "$.input.category", "segment": "$.where",
        "segment.country": "$.request.geo.country", "prediction": "$.out.class",
    })  # fmt: skip
    event = {
        "request": {"uuid": "u1", "at": TS, "geo": {"country": "ES"}},
        "meta": {"model": "fraud"}, "input": {"values": {"x": 1.5, "b": True}, "category": "q"},
    }  # fmt: skip
    assert taken(orjson.dumps(event), of) == {
        "id": "u1", "ts": TS, "model": "fraud", "version": None, "features.x": 1.5,
        "features.c": "q", "features.b": True, "segment.country": "ES",
    }  # fmt: skip
    # Every object on the way may be absent or null.
    for hole in ({}, {"request": None, "input": {"values": None}}, {"request": {"geo": None}}):
        assert set(taken(orjson.dumps(hole), of).values()) == {None}
    error = refused(b'{"request":{"geo":"ES"}}', of)
    assert error.reason == "wrong_type"
    assert "$.request.geo is a string" in error.message
    assert "`input.fields` must say where the values are" in error.message


def test_the_whole_event_as_features_and_segment() -> None:
    of = decoder(fields={"features": "$", "segment": "$", "id": "$.key"})
    found = taken(b'{"key":"k","ts":5,"x":2,"c":"q","b":false,"country":"FR"}', of)
    assert found == {
        "id": "k", "ts": 5, "model": None, "version": None, "features.x": 2.0, "features.c": "q",
        "features.b": False, "segment.country": "FR",
    }  # fmt: skip
    error = refused(b'{"key":"k","x":"2"}', of)
    assert "$.x is a string" in error.message


def test_a_segment_and_a_feature_of_one_name_are_told_apart() -> None:
    of = decoder(Wanted({"country": "numeric"}, ("country", "tier")))
    value = b'{"id":"a","features":{"country":3},"segment":{"country":"ES","tier":"a"}}'
    assert taken(value, of)["segment.country"] == "ES"
    error = refused(value.replace(b'"tier":"a"', b'"tier":[]'), of)
    assert error.reason == "bad_segment"
    assert error.message.startswith("$.segment.tier is a list")


def test_names_that_are_no_identifiers() -> None:
    of = decoder(Wanted({"a.b": "numeric", "ñ €": "categorical", "class": "boolean"}))
    found = taken('{"features":{"a.b":1,"ñ €":"q","class":true}}'.encode(), of)
    assert (found["features.a.b"], found["features.ñ €"], found["features.class"]) == (1, "q", True)
    assert '$.features["a.b"] is a string' in refused(b'{"features":{"a.b":"1"}}', of).message


@pytest.mark.parametrize("fields", [
    {"features.x": "$.id"}, {"features": "$.ts"}, {"features.x": "$.features.c.deep"},
])  # fmt: skip
def test_one_place_serves_one_field(fields: dict[str, str]) -> None:
    source = Input.model_construct(
        topic="inference", format="json", max_message_bytes=1000, max_ahead_ms=0,
        fields={k: tuple(v.split(".")[1:]) for k, v in fields.items()},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="a place in the event can serve one field"):
        Decoder(source, WANTED)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_key_that_cannot_be_read_is_named(name: str) -> None:
    source = Input.model_validate({"topic": "t"})
    with pytest.raises(ConfigError, match="topic 't'.*cannot be read: rename it"):
        Decoder(source, Wanted({name: "numeric"}))


def test_prediction_and_score_stand_beside_the_features() -> None:
    of = decoder(Wanted({"score": "numeric", "prediction": "categorical", "x": "numeric"}))
    found = taken(b'{"id":"a","score":0.5,"prediction":3,"features":{"x":1,"score":9}}', of)
    assert (found["features.score"], found["features.prediction"]) == (0.5, 3)


# Columns.

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False),
    st.text(max_size=5),
)  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {"id": st.text(max_size=3)},
    optional={
        "ts": st.one_of(st.integers(0, 2**40), st.text(max_size=5), st.floats(), st.none()),
        "model": st.none() | st.text(max_size=3),
        "version": st.one_of(st.none(), st.text(max_size=3), st.integers(0, 9), st.floats(0, 9)),
        "other": SCALARS | st.lists(SCALARS, max_size=2),
        "segment": st.none() | st.fixed_dictionaries({}, optional={"country": SCALARS}),
        "features": st.none() | st.fixed_dictionaries({}, optional={
            "x": st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70)),
            "c": SCALARS,
            "b": st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
        }),
    },
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_the_fast_and_the_slow_way_give_the_same_columns(documents: list[dict[str, Any]]) -> None:
    """A NaN literal, which the fast way refuses, sends an event the slow way."""
    of = decoder()
    texts = [json.dumps(d) for d in documents]
    fast = of.decode([t.encode() for t in texts])
    slow = of.decode([(t[:-1] + ', "zz": NaN}').encode() for t in texts])
    assert fast[1] == slow[1] == []
    for name in of.paths:
        assert repr(of.column(fast[0], name)) == repr(of.column(slow[0], name))
    quick, nan = of.matrix(fast[0], ["x"])
    again, nan_again = of.matrix(slow[0], ["x"])
    np.testing.assert_array_equal(quick, again)
    assert (nan is None) == (nan_again is None)
    # And both are what Python's json says.
    said = [(d.get("features") or {}).get("x") for d in documents]
    expected = [math.nan if v is None else float(v) for v in said]
    np.testing.assert_array_equal(quick, [expected])
    sent = [isinstance(v, float) and math.isnan(v) for v in said]
    assert (nan is None) == (not any(sent))
    if nan is not None:
        assert nan.tolist() == [sent]


@pytest.mark.parametrize("names", [["x"], ["x", "y"], ["y", "x", "z"], ["far", "x"], ["far"]])
def test_a_matrix_has_its_rows_in_the_order_asked(names: list[str]) -> None:
    wanted = Wanted(dict.fromkeys(("x", "y", "z", "far"), "numeric") | {"c": "categorical"})
    of = decoder(wanted, fields={"features.far": "$.elsewhere.far"})
    rows = [{"x": 1, "y": 2, "z": 3, "far": 4}, {"x": 5, "y": None, "z": 7, "far": None}, {}]
    values = [
        orjson.dumps({"features": {k: v for k, v in r.items() if k != "far"} or None,
                      "elsewhere": {"far": r["far"]} if r else None})
        for r in rows
    ]  # fmt: skip
    events, errors = of.decode(values)
    assert errors == []
    table, nan = of.matrix(events, names)
    expected = [[math.nan if r.get(n) is None else r[n] for r in rows] for n in names]
    np.testing.assert_array_equal(table, expected)
    assert table.flags.c_contiguous
    assert nan is None
    assert of.matrix([], names)[0].shape == (len(names), 0)


# Event times.


def one_time(value: Any) -> int | str:
    try:
        return event_time(value)
    except EventError as error:
        return error.reason


ISO = st.builds(
    lambda y, mo, d, h, mi, s, frac, sep, zone: f"{y}-{mo}-{d}{sep}{h}:{mi}:{s}{frac}{zone}",
    st.sampled_from(["2026", "2024", "2000", "1900", "0001", "9999", "0000", "1969", "026"]),
    st.sampled_from(["01", "02", "02", "06", "12", "00", "13", "1"]),
    st.sampled_from(["01", "28", "29", "30", "31", "00", "32", "9"]),
    st.sampled_from(["00", "08", "23", "24", "25"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["00", "59", "60", "61"]),
    st.sampled_from(["", "", ".123", ".123", ".000", ".9", ".123456", ".123999", ",500", ".12a"]),
    st.sampled_from(["T", "T", "T", "T", " ", "t", "_"]),
    st.sampled_from(["Z", "Z", "Z", "", "+00:00", "+05:30", "-12:00", "+0200", "z", "+24:00", " "]),
)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(st.lists(ISO | st.text(max_size=24), min_size=1, max_size=4))
def test_many_times_are_read_as_one_by_one(texts: list[str]) -> None:
    times, errors = event_times(texts)
    refusals = {i: e.reason for i, e in errors}
    assert [refusals.get(i, int(t)) for i, t in enumerate(times)] == [one_time(t) for t in texts]


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(
    st.datetimes(),
    st.sampled_from(["milliseconds", "seconds", "microseconds"]),
    st.one_of(st.none(), st.integers(-23 * 60, 23 * 60)),
)
def test_what_isoformat_writes_is_read(moment: datetime, digits: str, offset: int | None) -> None:
    zone = UTC if offset is None else timezone(timedelta(minutes=offset))
    text = moment.replace(tzinfo=zone).isoformat(timespec=digits)
    if offset is None:
        text = text.replace("+00:00", "Z")
    unit = {"milliseconds": 1000, "seconds": 10**6, "microseconds": 1}[digits]
    since = moment - datetime(1970, 1, 1) - timedelta(minutes=offset or 0)
    us = since // timedelta(microseconds=1) // unit * unit
    ms = us // 1000
    if -62_135_596_800_000 <= ms < 253_402_300_800_000:
        assert event_times([text])[0].tolist() == [ms]
        assert event_times([text, text, "x"])[0].tolist() == [ms, ms, 0]
    else:
        # The year 0 or 10000 in UTC: nothing downstream could write it.
        assert one_time(text) == "bad_time"


@pytest.mark.parametrize(("value", "expected"), [
    (TS_TEXT, TS), (TS, TS), (float(TS), TS), (TS + 0.9, TS), (-0.5, -1), (0, 0), (-1, -1),
    ("2026-11-21T08:00:00.123", TS), ("2026-11-21 08:00:00.123Z", TS),
    ("2026-11-21T09:30:00.123+01:30", TS), ("2026-11-21T08:00:00.123999Z", TS),
    ("2024-02-29T00:00:00Z", 1_709_164_800_000), ("1969-12-31T23:59:59.999Z", -1),
    ("2026-11-21", 1_795_219_200_000), ("0001-01-01T00:00:00Z", -62_135_596_800_000),
    ("9999-12-31T23:59:59.999Z", 253_402_300_799_999), (253_402_300_799_999, 253_402_300_799_999),
    ("2023-02-29T00:00:00Z", "bad_time"), ("2026-02-30T00:00:00.000Z", "bad_time"),
    ("2026-11-21T25:00:00Z", "bad_time"), ("2026-11-21T08:60:00Z", "bad_time"),
    ("0001-01-01T00:00:00+02:00", "bad_time"), ("9999-12-31T23:59:59-02:00", "bad_time"),
    (253_402_300_800_000, "bad_time"), (-62_135_596_800_001, "bad_time"), (2**63, "bad_time"),
    (10**400, "bad_time"), (math.nan, "bad_time"), (math.inf, "bad_time"), ("", "bad_time"),
    ("now", "bad_time"), ("1795248000123", "bad_time"), (True, "bad_time"), (None, "missing_time"),
    ("２０２６-11-21T08:00:00Z", "bad_time"), ("2026-11-21T08:00:0\0Z", "bad_time"),
])  # fmt: skip
def test_event_times(value: Any, expected: int | str) -> None:
    assert one_time(value) == expected
    for many in ([value], [value, value, value], [value, TS], [value, TS_TEXT], [TS_TEXT, value]):
        times, errors = event_times(many)
        at = len(many) - 1 if many[0] == TS_TEXT and value != TS_TEXT else 0
        assert {i: e.reason for i, e in errors}.get(at, int(times[at])) == expected
    assert event_times([])[0].tolist() == []


# What only a whole event shows: ids, times, models.


def summariser(names: tuple[str, ...] = ("fraud",), **source: Any) -> Summariser:
    models, references = [], {}
    for name in names:
        model = ModelConfig.model_validate({
            "name": name, "input": {"topic": "inference", **source}, "reference": "./r",
            "windows": ["5m"], "features": {"x": "numeric"},
        })  # fmt: skip
        models.append(model)
        rows = [b'{"features":{"x":%d}}' % i for i in range(40)]
        references[name] = reference_with(model, rows)
    return Summariser("inference", models, references)


def reference_with(model: ModelConfig, rows: list[bytes]) -> Reference:
    return fit_rows(collect(model, rows), {}).reference


def summarise(
    of: Summariser, values: list[bytes | None], kafka_ms: list[int] | None = None
) -> Summary:
    stamps = np.array(kafka_ms or [-1] * len(values), np.int64)
    return of.summarise(Messages(values, np.zeros(len(values), np.int64), stamps), {})


@pytest.mark.parametrize(("value", "reason", "says"), [
    (b'{"ts":1}', "missing_id", "has no id"),
    (b'{"id":null,"ts":1}', "missing_id", "has no id"),
    (b'{"id":"","ts":1}', "missing_id", "has an empty id"),
    (b'{"id":7,"ts":1}', "bad_id", "$.id is 7"),
    (b'{"id":"a"}', "missing_time", "has no $.ts"),
    (b'{"id":"a","ts":null}', "missing_time", "has no $.ts"),
    (b'{"id":"a","ts":"yesterday"}', "bad_time", '$.ts is "yesterday"'),
    (b'{"id":"a","ts":NaN}', "bad_time", "$.ts is NaN"),
    (b'{"id":"a","ts":1e30}', "bad_time", "years 1 to 9999"),
    # Of two mistakes the first is said, and the message is one dead letter.
    (b'{"ts":"yesterday"}', "missing_id", "has no id"),
])  # fmt: skip
def test_an_event_without_id_or_time(value: bytes, reason: str, says: str) -> None:
    good = b'{"id":"a","ts":1,"features":{"x":1}}'
    summary = summarise(summariser(), [good, value, good])
    [(at, error)] = summary.refused
    assert (at, error.reason) == (1, reason)
    assert says in error.message
    counts = summary.counts[0]
    assert (counts.received, counts.summarised, counts.dead_lettered) == (3, 2, 1)
    assert counts.balanced


@pytest.mark.parametrize(("ts", "kafka_ms", "ahead"), [
    (TS, TS - 3_600_000, False), (TS, TS - 3_600_001, True), (TS, TS, False), (TS, -1, False),
    ("9999-12-31T23:59:59.999Z", TS, True), (253_402_300_799_999, 0, True), (TS, 0, True),
    # Timestamps are the producer's, who may say anything.
    (TS, 2**63 - 1, False), (253_402_300_799_999, 2**63 - 1, False), (-1, 0, False),
])  # fmt: skip
def test_times_ahead_of_kafka(ts: Any, kafka_ms: int, ahead: bool) -> None:
    value = orjson.dumps({"id": "a", "ts": ts, "features": {"x": 1}})
    summary = summarise(summariser(), [value], [kafka_ms])
    assert [e.reason for _, e in summary.refused] == ["time_ahead"] * ahead
    assert len(summary.deltas) == (not ahead)
    if ahead:
        message = summary.refused[0][1].message
        assert "input.max_ahead = 1h" in message
        assert "it would close panes before their time" in message
        assert summary.largest_ms == {0: None}


def test_models_of_one_topic() -> None:
    both = summariser(("churn", "fraud"))
    values: list[bytes | None] = [
        orjson.dumps({"id": "a", "ts": 1, "model": m, "features": {"x": 1}})
        for m in ("fraud", "churn", "other", None)
    ]
    summary = summarise(both, values)
    [(at, error)] = summary.refused
    assert (at, error.reason) == (3, "missing_model")
    assert "carries several (churn, fraud)" in error.message
    assert [key for key, _ in summary.deltas] == ["churn", "fraud"]
    assert summary.counts[0].as_dict() == {
        "received": 4, "summarised": 2, "late": 0, "dead_lettered": 1, "ignored": 1,
    }  # fmt: skip
    alone = summarise(summariser(), values)
    assert alone.refused == []
    assert (alone.counts[0].summarised, alone.counts[0].ignored) == (2, 2)
    [(_, delta)] = alone.deltas
    assert delta.events.tolist() == [2]


def test_json_as_python_writes_it() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "\xc3\xb1"]}') == {"a": [1, 2.5, None, "ñ"]}
    assert math.isnan(parse_json(b"[NaN]")[0])
    assert parse_json(b"[-Infinity]") == [-math.inf]
    for bad in (b"[nan]", b"{NaN:1}", b'["\\ud800", NaN]', b"[NaN", b"\xff[NaN]"):
        with pytest.raises(EventError) as caught:
            parse_json(bad)
        assert caught.value.reason == "not_json"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_features_that_are_null_or_absent_are_all_missing(order: tuple[int, ...]) -> None:
    texts = ['"features":null', '"features":{"x":1}', '"id":"b"', '"features":{}']
    values: list[bytes | None] = [b'{"id":"a","ts":1,' + texts[i].encode() + b"}" for i in order]
    summary = summarise(summariser(), values)
    assert summary.refused == []
    [(_, delta)] = summary.deltas
    assert delta.events.tolist() == [4]
    # The reference is 0 … 39: the cell of the value 1, and the one for missing values.
    assert dict(zip(delta.cells.tolist(), delta.counts.tolist(), strict=True)) == {42: 1, 81: 3}
