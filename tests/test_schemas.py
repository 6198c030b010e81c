"""The published contracts: models, schemas, ids, headers, and the documents made of them."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel, ValidationError

from driftline.schemas import alert as alerts
from driftline.schemas import cloudevents
from driftline.schemas import verdict as verdicts
from driftline.schemas.alert import Alert, alert_id, alert_key, parse_alert_key
from driftline.schemas.asyncapi import asyncapi_document
from driftline.schemas.contracts import CONTRACTS, json_schema
from driftline.schemas.deadletter import (
    MAX_MESSAGE_BYTES,
    DeadLetter,
    Reason,
    cut_value,
    dead_letter_headers,
    parse_dead_letter_headers,
)
from driftline.schemas.errors import EventError
from driftline.schemas.inference import InferenceEvent, event_time_ms
from driftline.schemas.label import LabelEvent
from driftline.schemas.units import iso_ms
from driftline.schemas.verdict import (
    Effect,
    Verdict,
    Window,
    parse_unit_key,
    unit_key,
    verdict_id,
)

OK, ON_STATISTIC, INSUFFICIENT = verdicts.EXAMPLES
FIRING, JOINED, RESOLVED, OF_A_FEATURE = alerts.EXAMPLES
DELETE = object()

names = st.text(st.sampled_from("ab%|=2357CD é\n")) | st.text()
segments = st.dictionaries(names, names, max_size=4)


def changed(message: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of `message` with the field at `path` (`window.n`) replaced, or deleted."""
    result = copy.deepcopy(dict(message))
    *parents, last = path.split(".")
    place = result
    for parent in parents:
        place = place[parent]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return result


VALIDATORS = {name: Draft202012Validator(json_schema(name)) for name in CONTRACTS}


def validate(model: type[BaseModel], message: object) -> None:
    # what driftline reads is strict by itself, what it writes is when it is read back
    strict = None if model in (InferenceEvent, LabelEvent) else True
    model.model_validate(message, strict=strict)


def accepts(model: type[BaseModel], message: object) -> bool:
    try:
        validate(model, message)
    except ValidationError:
        return False
    return True


# --- examples and counterexamples -----------------------------------------------------------


@pytest.mark.parametrize("name", CONTRACTS)
def test_schema_is_a_draft_2020_12_schema_with_its_own_urn(name: str) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:driftline:schema:{name}:v1"
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", CONTRACTS)
def test_examples_are_valid_for_model_and_schema(name: str) -> None:
    contract = CONTRACTS[name]
    validator = Draft202012Validator(json_schema(name))
    assert contract.examples
    for example in contract.examples:
        validator.validate(example)
        validate(contract.model, example)


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_field_is_described(name: str) -> None:
    schema = json_schema(name)
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["description"]
        for field, rules in part["properties"].items():
            assert len(rules["description"]) > 10, field


WRONG: list[tuple[str, Mapping[str, Any], str, object]] = [
    ("inference", CONTRACTS["inference"].examples[0], "id", DELETE),
    ("inference", CONTRACTS["inference"].examples[0], "id", ""),
    ("inference", CONTRACTS["inference"].examples[0], "id", 7),
    ("inference", CONTRACTS["inference"].examples[0], "ts", DELETE),
    ("inference", CONTRACTS["inference"].examples[0], "ts", None),
    ("inference", CONTRACTS["inference"].examples[0], "ts", True),
    ("inference", CONTRACTS["inference"].examples[0], "features", []),
    ("inference", CONTRACTS["inference"].examples[0], "features.amount", {"eur": 1}),
    ("inference", CONTRACTS["inference"].examples[0], "features.vec", [0.1, "0.2"]),
    ("inference", CONTRACTS["inference"].examples[0], "features.vec", [0.1, None]),
    ("inference", CONTRACTS["inference"].examples[0], "score", [0.1, 0.9]),
    ("inference", CONTRACTS["inference"].examples[0], "score", "0.9"),
    ("inference", CONTRACTS["inference"].examples[0], "score", True),
    ("inference", CONTRACTS["inference"].examples[0], "latency_ms", "8"),
    ("inference", CONTRACTS["inference"].examples[0], "error", 500),
    ("inference", CONTRACTS["inference"].examples[0], "segment", {"country": 34}),
    ("inference", CONTRACTS["inference"].examples[0], "segment", {"country": None}),
    ("label", CONTRACTS["label"].examples[0], "label", None),
    ("label", CONTRACTS["label"].examples[0], "label", DELETE),
    ("label", CONTRACTS["label"].examples[0], "ts", DELETE),
    ("verdict", OK, "id", "11D9653B38B86C58BF803EB77EDED3A3"),
    ("verdict", OK, "id", "11d9"),
    ("verdict", OK, "version", DELETE),
    ("verdict", OK, "segment", None),
    ("verdict", OK, "window.start", "2026-11-21T07:00:00Z"),
    ("verdict", OK, "window.end", "2026-11-21T09:00:00.000+01:00"),
    ("verdict", OK, "window.n", -1),
    ("verdict", OK, "window.n", 1.5),
    ("verdict", OK, "window.hop", "1m"),
    ("verdict", OK, "reference.id", ""),
    ("verdict", OK, "p_value", 1.01),
    ("verdict", OK, "p_value", -0.01),
    ("verdict", OK, "p_value", "0.5"),
    ("verdict", OK, "p_value", None),
    ("verdict", OK, "alpha", DELETE),
    ("verdict", OK, "alpha", 0),
    ("verdict", OK, "alpha", 1.1),
    ("verdict", OK, "threshold", 0.3),
    ("verdict", OK, "drifted", 1),
    ("verdict", OK, "status", "skipped"),
    ("verdict", OK, "since", "07:12"),
    ("verdict", OK, "effect.kind", "shift"),
    ("verdict", OK, "effect.category", "EV"),
    ("verdict", OK, "detail", None),
    ("verdict", OK, "extra", 1),
    ("verdict", ON_STATISTIC, "threshold", DELETE),
    ("verdict", ON_STATISTIC, "statistic", None),
    ("verdict", ON_STATISTIC, "effect.category", DELETE),
    ("verdict", INSUFFICIENT, "drifted", True),
    ("verdict", INSUFFICIENT, "detail.reason", DELETE),
    ("verdict", INSUFFICIENT, "detail.reason", ""),
    ("verdict", INSUFFICIENT, "threshold", 1.0),
    ("alert", FIRING, "state", "open"),
    ("alert", FIRING, "state", "resolved"),
    ("alert", FIRING, "severity", "info"),
    ("alert", FIRING, "ends_at", "2026-11-21T10:00:00.000Z"),
    ("alert", FIRING, "summary", ""),
    ("alert", FIRING, "verdicts", ["1"]),
    ("alert", FIRING, "verdicts", None),
    ("alert", FIRING, "links", {"dashboard": None}),
    ("alert", FIRING, "feature", DELETE),
    ("alert", FIRING, "features", []),
    ("alert", FIRING, "n", 0),
    ("alert", OF_A_FEATURE, "feature", ""),
    ("alert", FIRING, "labels", {}),
    ("alert", RESOLVED, "ends_at", None),
]


@pytest.mark.parametrize(
    ("name", "example", "path", "value"),
    WRONG,
    ids=[
        f"{name}-{path}-{value if value is not DELETE else 'gone'}"
        for name, _, path, value in WRONG
    ],
)
def test_wrong_messages_fail_model_and_schema(
    name: str, example: Mapping[str, Any], path: str, value: object
) -> None:
    message = changed(example, path, value)
    assert not VALIDATORS[name].is_valid(message)
    assert not accepts(CONTRACTS[name].model, message)


def test_the_document_s_schemas_refuse_what_the_contracts_refuse() -> None:
    components = asyncapi_document()["components"]
    for name, example, path, value in WRONG:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        assert not Draft7Validator(schema).is_valid(changed(example, path, value)), (name, path)


def fields_of(value: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield ".".join((*path, key))
            yield from fields_of(inner, (*path, key))


MUTANTS = st.sampled_from(
    [
        DELETE,
        None,
        True,
        False,
        0,
        1,
        -3,
        0.5,
        2.5,
        "",
        "x",
        "a" * 32,
        "0" * 32,
        [],
        ["x"],
        [1.5],
        {},
        {"a": "b"},
        {"a": 1},
        "ok",
        "insufficient",
        "mean_shift",
        "share_shift",
        "resolved",
        "2026-11-21T10:00:00.000Z",
    ]
)
# Rules that relate two values to each other, which JSON Schema cannot say.
MODEL_ONLY = re.compile(r"must end after|lies before|is not that of model|is not an event time")


@settings(deadline=None)
@given(st.data())
def test_model_and_schema_agree_on_mutated_messages(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(CONTRACTS)))
    contract = CONTRACTS[name]
    message: dict[str, Any] = dict(data.draw(st.sampled_from(contract.examples)))
    for _ in range(data.draw(st.integers(1, 3))):
        paths = sorted(set(fields_of(message)) | {"alpha", "threshold", "surprise"})
        path = data.draw(st.sampled_from(paths))
        value = data.draw(MUTANTS)
        if value is not DELETE or path in set(fields_of(message)):
            message = changed(message, path, value)
    valid = VALIDATORS[name].is_valid(message)
    try:
        validate(contract.model, message)
    except ValidationError as error:
        assert not valid or MODEL_ONLY.search(str(error)), (message, str(error))
    else:
        # null where a key should be absent is the one thing the models let pass
        lenient = any(message.get(key, 0) is None for key in ("alpha", "threshold"))
        effect = message.get("effect")
        lenient |= isinstance(effect, dict) and effect.get("category", 0) is None
        assert valid or lenient, message


# --- inference and label events -------------------------------------------------------------


def test_fields_driftline_does_not_know_are_ignored() -> None:
    event = InferenceEvent.model_validate({"id": "1", "ts": 0, "trace": {"span": 1}})
    assert "trace" not in event.model_dump()
    VALIDATORS["inference"].validate({"id": "1", "ts": 0, "trace": {}})


def test_values_keep_their_type() -> None:
    features = {"i": 3, "f": 3.0, "b": True, "s": "3", "n": None, "v": [1, 2.5]}
    event = InferenceEvent.model_validate({"id": "1", "ts": 0, "features": features})
    assert [type(value) for value in event.features.values()] == [
        *(int, float, bool, str, type(None), list)
    ]
    assert LabelEvent.model_validate({"id": "1", "label": True, "ts": 0}).label is True


@pytest.mark.parametrize(
    ("ts", "ms"),
    [
        ("2026-11-21T08:00:00.123Z", 1_795_248_000_123),
        ("2026-11-21T09:00:00.123+01:00", 1_795_248_000_123),
        ("2026-11-21T08:00:00.123999Z", 1_795_248_000_123),  # finer digits are cut off
        ("2026-11-21T08:00:00.123", 1_795_248_000_123),  # no offset: UTC
        (1_795_248_000_123, 1_795_248_000_123),
        (1_795_248_000_123.9, 1_795_248_000_123),
        (0, 0),
        ("1969-12-31T23:59:59.9995Z", -1),  # down, not towards 1970
        (-0.5, -1),
    ],
)
def test_event_time_in_every_spelling(ts: str | float, ms: int) -> None:
    assert event_time_ms(ts) == ms
    assert InferenceEvent(id="1", ts=ts).ts_ms == ms
    assert LabelEvent(id="1", label=1, ts=ts).ts_ms == ms


@pytest.mark.parametrize(
    "ts", ["yesterday", "now", "-1h", "1795248000123", "", math.nan, math.inf, 10**18, "2026-13-01"]
)
def test_what_is_no_event_time_is_refused_with_its_value(ts: str | float) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(ts))):
        event_time_ms(ts)
    assert not accepts(InferenceEvent, {"id": "1", "ts": ts})


# --- verdicts and alerts --------------------------------------------------------------------


@pytest.mark.parametrize("example", verdicts.EXAMPLES)
def test_verdict_round_trips_with_keys_in_order(example: dict[str, Any]) -> None:
    verdict = Verdict.model_validate(example)
    value = verdict.to_json()
    assert Verdict.from_json(value) == verdict
    assert json.loads(value) == example
    order = [
        *("id", "model", "version", "segment", "feature", "detector", "window", "reference"),
        *("statistic", "p_value", "alpha", "threshold", "drifted", "status", "effect", "since"),
        "detail",
    ]
    assert list(json.loads(value)) == [key for key in order if key in example]
    assert json.loads(verdict.model_dump_json()) == example


@pytest.mark.parametrize("example", alerts.EXAMPLES)
def test_alert_round_trips_with_keys_in_order(example: dict[str, Any]) -> None:
    alert = Alert.model_validate(example)
    assert Alert.from_json(alert.to_json()) == alert
    assert list(json.loads(alert.to_json())) == [
        *("id", "key", "state", "severity", "reason", "starts_at", "ends_at", "summary"),
        *("verdicts", "links", "model", "version", "segment", "feature", "features", "n"),
    ]


def test_numbers_that_are_not_finite_become_null() -> None:
    detail = {"method": "asymp", "deep": [math.nan, {"inf": -math.inf}], "np": np.float64(math.inf)}
    verdict = Verdict.model_validate(
        OK
        | {
            "statistic": math.inf,
            "detail": detail,
            "effect": OK["effect"] | {"value": -math.inf, "window": math.nan},
        }
    )
    value = verdict.to_json()
    read = json.loads(value, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["statistic"] is None
    assert read["effect"]["value"] is None
    assert read["effect"]["window"] is None
    assert read["detail"] == {"method": "asymp", "deep": [None, {"inf": None}], "np": None}
    assert Verdict.from_json(value) == verdict
    VALIDATORS["verdict"].validate(read)
    assert orjson.dumps({"x": math.nan}) == b'{"x":null}'


def test_a_p_value_that_is_not_a_number_cannot_decide() -> None:
    with pytest.raises(ValidationError, match="needs p_value"):
        Verdict.model_validate(OK | {"p_value": math.nan})


def test_numpy_scalars_from_a_detector_are_numbers() -> None:
    found = {"statistic": np.float32(0.5), "p_value": np.float64(0.25), "drifted": np.bool_(True)}
    detail = {"counts": np.arange(3), "n_test": np.int64(3)}
    read = json.loads(Verdict.model_validate(OK | found | {"detail": detail}).to_json())
    assert (read["statistic"], read["p_value"], read["drifted"]) == (0.5, 0.25, True)
    assert read["detail"] == {"counts": [0, 1, 2], "n_test": 3}


def test_equal_segments_are_equal_bytes() -> None:
    one = Verdict.model_validate(OK | {"segment": {"country": "ES", "tier": "gold"}})
    other = Verdict.model_validate(OK | {"segment": {"tier": "gold", "country": "ES"}})
    assert one.to_json() == other.to_json()
    assert one.key == other.key == "fraud|country=ES|tier=gold"


def test_a_verdict_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Verdict.model_validate(OK).drifted = False  # pyright: ignore[reportAttributeAccessIssue]


def test_a_window_ends_after_it_starts() -> None:
    start = iso_ms(0)
    with pytest.raises(ValidationError, match="must end after it starts"):
        Window(size="5m", start=start, end=start, n=0)
    window = Window(size="5m", start=start, end=iso_ms(300_000), n=0)
    assert (window.start_ms, window.end_ms) == (0, 300_000)


def test_a_day_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="2026-02-30"):
        Window(size="5m", start="2026-02-30T00:00:00.000Z", end=iso_ms(10**13), n=0)


def test_an_alert_s_key_is_that_of_its_fields() -> None:
    with pytest.raises(ValidationError, match=re.escape("'fraud|country=ES|amount'")):
        Alert.model_validate(OF_A_FEATURE | {"key": "fraud|amount"})
    with pytest.raises(ValidationError, match=re.escape("gives 'fraud|country=ES'")):
        Alert.model_validate(FIRING | {"key": OF_A_FEATURE["key"]})


def test_an_alert_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValidationError, match="lies before starts_at"):
        Alert.model_validate(RESOLVED | {"ends_at": "2026-11-21T07:59:59.999Z"})


def test_effects_name_a_category_only_for_shares() -> None:
    mean = Effect(kind="mean_shift", value=1, unit="u", reference=0, window=1)
    assert "category" not in mean.model_dump()
    with pytest.raises(ValidationError, match="names its category"):
        Effect(kind="share_shift", value=0.1, unit="share", reference=0, window=0.1)


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (b"{not json", Reason.NOT_JSON, ["{not json", "one JSON object"]),
        (b'{"p_value": NaN}', Reason.NOT_JSON, ["NaN"]),
        (b"\xff\xfe", Reason.NOT_JSON, ["not JSON"]),
        (b"[1]", Reason.BAD_VERDICT, ["[1] at $:", "driftline schema verdict"]),
        (
            orjson.dumps(changed(OK, "window.n", "many")),
            Reason.BAD_VERDICT,
            ['"many" at $.window.n'],
        ),
        (orjson.dumps(changed(OK, "p_value", "0.5")), Reason.BAD_VERDICT, ['"0.5" at $.p_value']),
    ],
)
def test_a_message_that_is_no_verdict_says_what_and_where(
    value: bytes, reason: Reason, said: list[str]
) -> None:
    with pytest.raises(EventError) as caught:
        Verdict.from_json(value)
    assert caught.value.reason == reason
    for part in said:
        assert part in caught.value.message


def test_a_message_that_is_no_alert_is_told_apart() -> None:
    with pytest.raises(EventError) as caught:
        Alert.from_json(orjson.dumps(OK))
    assert caught.value.reason == "bad_alert"


# --- keys and ids ---------------------------------------------------------------------------


def test_keys_read_as_documented() -> None:
    assert unit_key("fraud", {}) == "fraud"
    assert unit_key("fraud", {"country": "ES"}) == "fraud|country=ES"
    assert unit_key("a|b", {"x=y": "50%"}) == "a%7Cb|x%3Dy=50%25"
    assert alert_key("fraud", {"country": "ES"}, "amount") == "fraud|country=ES|amount"
    assert alert_key("fraud", {}, "a=b") == "fraud|a%3Db"


@settings(deadline=None)
@given(names, segments)
def test_unit_keys_are_taken_apart_again(model: str, segment: dict[str, str]) -> None:
    key = unit_key(model, segment)
    assert parse_unit_key(key) == (model, segment)
    assert list(parse_unit_key(key)[1]) == sorted(segment)


@settings(deadline=None)
@given(names, segments, names)
def test_alert_keys_are_taken_apart_again_and_are_no_unit_keys(
    model: str, segment: dict[str, str], feature: str
) -> None:
    key = alert_key(model, segment, feature)
    assert parse_alert_key(key) == (model, segment, feature)
    whole = alert_key(model, segment, None)
    assert whole == unit_key(model, segment)
    assert parse_alert_key(whole) == (model, segment, None)
    with pytest.raises(ValueError, match="not the key of a unit"):
        parse_unit_key(key)


@settings(deadline=None)
@given(st.text(st.sampled_from("ab%|=2357CD")))
def test_only_the_one_spelling_of_a_key_is_read(text: str) -> None:
    try:
        unit = parse_unit_key(text)
    except ValueError:
        return
    assert unit_key(*unit) == text


@pytest.mark.parametrize(
    "key", ["fraud|", "fraud|country", "fraud|b=1|a=2", "fraud|a=1|a=2", "a%41", "a%7c", "m|a=b=c"]
)
def test_other_text_is_no_unit_key(key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(key))):
        parse_unit_key(key)


@pytest.mark.parametrize("key", ["a%41", "fraud|b=1|a=2", "fraud|a%41", "fraud|x|amount"])
def test_other_text_is_no_alert_key(key: str) -> None:
    with pytest.raises(ValueError, match="is not the key of"):
        parse_alert_key(key)


def test_ids_never_change() -> None:
    """Golden values: stored verdicts and other languages compute the same ids."""
    segment = {"tier": "gold", "country": "ES"}
    end_ms = 1_795_248_000_000
    assert verdict_id("fraud", {}, "amount", "ks", "5m", end_ms, "r1") == GOLDEN[0]
    assert verdict_id("fraud", segment, "amount", "ks", "5m", end_ms, "r1") == GOLDEN[1]
    assert verdict_id("betrüger|=%", {"a\n": '"'}, "é", "ks", "1h", end_ms, "r") == GOLDEN[2]
    assert alert_id("fraud|amount", "2026-11-21T08:00:00.000Z") == GOLDEN[3]


def test_order_of_a_segment_does_not_change_the_id() -> None:
    ids = {
        verdict_id("m", segment, "f", "ks", "5m", 0, "r")
        for segment in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    }
    assert len(ids) == 1


questions = st.tuples(names, segments, names, names, names, st.integers(-(2**53), 2**53), names)


@settings(deadline=None)
@given(questions, questions)
def test_different_questions_have_different_ids(one: Any, other: Any) -> None:
    assert (verdict_id(*one) == verdict_id(*other)) == (one == other)


def test_moving_text_between_neighbouring_fields_changes_the_id() -> None:
    ids = {
        verdict_id("ab", {}, "c", "d", "5m", 1, "r"),
        verdict_id("a", {}, "bc", "d", "5m", 1, "r"),
        verdict_id('ab","c', {}, "", "d", "5m", 1, "r"),
        verdict_id("ab", {"c": "d"}, "", "", "5m", 1, "r"),
        verdict_id("ab", {"c": "", "d": ""}, "", "", "5m", 1, "r"),
        verdict_id("ab", {}, "c", "d", "5m1", 1, "r"),
        verdict_id("ab", {}, "c", "d", "5m", 11, "r"),
    }
    assert len(ids) == 7


def test_examples_carry_the_ids_they_should() -> None:
    for example in verdicts.EXAMPLES:
        verdict = Verdict.model_validate(example)
        asked = (verdict.window.size, verdict.window.end_ms, verdict.reference.id)
        names = (verdict.model, verdict.segment, verdict.feature, verdict.detector)
        assert verdict.id == verdict_id(*names, *asked)
    for example in alerts.EXAMPLES:
        assert example["id"] == alert_id(example["key"], example["starts_at"])


GOLDEN = (
    "b0fcff1a353d99f0792d1d46d3206755",
    "d7fadcf05e78c7182ab2c6ef143fc8f4",
    "0db66580dfd5252c126d83259e9f5feb",
    "12f1c8660ad863d7b67b88f9795d457d",
)


# --- CloudEvents ----------------------------------------------------------------------------


def test_headers_follow_the_binary_mode() -> None:
    assert cloudevents.verdict_headers(Verdict.model_validate(OK)) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", OK["id"].encode()),
        ("ce_source", b"driftline/fraud"),
        ("ce_type", b"io.driftline.verdict.v1"),
        ("ce_time", b"2026-11-21T08:00:00.000Z"),
        ("content-type", b"application/json"),
    ]


@settings(deadline=None)
@given(st.text(min_size=1))
def test_the_source_is_a_uri_reference_for_any_model_name(model: str) -> None:
    # RFC 3986: unreserved characters and percent-encoded octets, one path segment below driftline
    source = cloudevents.source_of(model)
    assert re.fullmatch(r"driftline/(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", source)


def test_each_state_of_an_alert_is_an_event_of_its_own_and_a_repeat_is_not() -> None:
    def ce_id(alert: Alert) -> bytes:
        return dict(cloudevents.alert_headers(alert, "2026-11-21T10:00:00.000Z"))["ce_id"]

    firing, resolved = Alert.model_validate(FIRING), Alert.model_validate(RESOLVED)
    assert firing.id == resolved.id
    assert ce_id(firing) != ce_id(resolved)
    assert ce_id(firing) == ce_id(Alert.model_validate(FIRING))


def test_headers_match_their_published_schema() -> None:
    schemas = asyncapi_document()["components"]["schemas"]
    for example in verdicts.EXAMPLES:
        headers = {
            k: v.decode() for k, v in cloudevents.verdict_headers(Verdict.model_validate(example))
        }
        Draft7Validator(schemas["verdictHeaders"]).validate(headers)
        assert not Draft7Validator(schemas["alertHeaders"]).is_valid(headers)


# --- dead letters ---------------------------------------------------------------------------

NO_TIME = EventError("missing_time", "{} has no ts; every event says when it happened; add ts")


def test_dead_letter_headers_read_as_documented() -> None:
    assert dead_letter_headers("inference", 3, 17, NO_TIME, "ingest") == [
        ("driftline_topic", b"inference"),
        ("driftline_partition", b"3"),
        ("driftline_offset", b"17"),
        ("driftline_reason", b"missing_time"),
        ("driftline_message", NO_TIME.message.encode()),
        ("driftline_stage", b"ingest"),
    ]


@settings(deadline=None)
@given(
    st.sampled_from(list(Reason)),
    st.text(max_size=300),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.none() | st.integers(0, 2**40),
    st.booleans(),
)
def test_dead_letter_headers_are_read_back(
    reason: Reason, message: str, partition: int, offset: int, truncated: int | None, as_text: bool
) -> None:
    error = EventError(reason, message)
    headers = dead_letter_headers("in", partition, offset, error, "detect", truncated)
    sent = [(k, v.decode() if as_text else v) for k, v in headers]
    letter = parse_dead_letter_headers([("trace", b"\xff"), ("empty", None), *sent])
    assert letter == DeadLetter("in", partition, offset, reason, message, "detect", truncated)
    schema = asyncapi_document()["components"]["schemas"]["deadLetterHeaders"]
    Draft7Validator(schema).validate({k: v.decode() for k, v in headers})


def test_the_newest_of_repeated_headers_counts() -> None:
    first = dead_letter_headers("inference", 0, 1, NO_TIME, "ingest")
    again = dead_letter_headers("driftline.dead-letters", 2, 3, NO_TIME, "ingest")
    assert parse_dead_letter_headers(first + again).topic == "driftline.dead-letters"


@pytest.mark.parametrize("text", ["\ud800 half a pair", "é" * 5000, "€" * 5000, "x" * 5000])
def test_no_message_keeps_a_letter_from_being_written(text: str) -> None:
    headers = dict(dead_letter_headers("t", 0, 0, EventError("unknown", text), "ingest"))
    raw = headers["driftline_message"]
    assert len(raw) <= MAX_MESSAGE_BYTES
    assert raw.decode()
    if len(text) >= 5000:
        assert len(raw) > MAX_MESSAGE_BYTES - 6
        assert raw.decode() == text[0] * (len(raw.decode()) - 1) + "…"


def test_a_reason_nobody_published_is_unknown_but_not_lost() -> None:
    headers = dead_letter_headers("t", 0, 0, EventError("odd_code", "what happened"), "ingest")
    letter = parse_dead_letter_headers(headers)
    assert letter.reason is Reason.UNKNOWN
    assert letter.message == "odd_code: what happened"


@pytest.mark.parametrize("headers", [None, [], [("ce_id", b"1")], [("driftline_topic", b"t")]])
def test_a_message_without_the_headers_is_no_dead_letter(
    headers: list[tuple[str, bytes]] | None,
) -> None:
    with pytest.raises(ValueError, match="not a dead letter: no header .*driftline_offset"):
        parse_dead_letter_headers(headers)


@pytest.mark.parametrize("offset", [b"", b"-1", b"1.0", b"\xd9\xa1", b"seven"])
def test_a_damaged_number_is_said(offset: bytes) -> None:
    headers = dead_letter_headers("t", 0, 0, NO_TIME, "ingest")
    with pytest.raises(ValueError, match="driftline_offset"):
        parse_dead_letter_headers([*headers, ("driftline_offset", offset)])


def test_reasons_are_short_codes_each_with_a_sentence() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", reason.value)
        assert reason.__doc__
        assert reason.__doc__.endswith(".")
        assert Reason(reason.value) is reason
        assert f"{reason}" == reason.value
    assert len({reason.__doc__ for reason in Reason}) == len(Reason)


def test_long_values_are_cut_and_say_how_long_they_were() -> None:
    assert cut_value(b"abcdef", 4) == (b"abcd", 6)
    assert cut_value(b"abcd", 4) == (b"abcd", None)
    assert cut_value(None, 4) == (None, None)
