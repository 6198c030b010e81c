"""The sections of driftline.yaml that stand for themselves: topics, ingest, alerts, input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ...detectors.multivariate import MULTIVARIATE
from .values import (
    MAX_PREFIX,
    TOPIC_NAME,
    Mistake,
    Section,
    duration,
    integer,
    mistaken,
    nearest,
    one_of,
    parse_path,
    size_bytes,
    topic_name,
    topic_prefix,
    wrong,
)

TOPIC_KEYS = ("panes", "drift", "alerts", "dead_letters", "state")
# What other people call them, in the order in which they are believed.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "id": (
        "request_id", "requestid", "event_id", "eventid", "prediction_id", "inference_id",
        "inferenceid", "transaction_id", "message_id", "uuid", "guid", "uid", "trace_id", "key",
    ),
    "ts": (
        "timestamp", "event_time", "eventtime", "time", "event_ts", "ts_ms", "timestamp_ms",
        "datetime", "date_time", "created_at", "createdat", "occurred_at", "event_timestamp",
        "request_time", "prediction_time", "inference_time", "inferencetime", "predicted_at",
        "created", "date",
    ),
    "model": ("model_name", "modelname", "model_id", "modelid", "inferenceservicename"),
    "version": ("model_version", "modelversion", "revision"),
    "features": ("inputs", "input", "feature_values", "attributes", "x", "instance"),
    "prediction": (
        "predicted", "predicted_class", "predicted_label", "predicted_value", "y_pred", "yhat",
        "y_hat", "label_pred", "pred", "output", "outcome", "decision", "class", "result",
    ),
    "score": (
        "probability", "proba", "prob", "confidence", "y_score", "likelihood", "risk_score",
        "prediction_score", "fraud_score",
    ),
    "latency_ms": ("latency", "duration_ms", "elapsed_ms", "response_time_ms", "took_ms"),
    "error": ("exception", "error_code", "error_message", "failure"),
    "segment": ("segments", "cohort", "dimensions"),
}  # fmt: skip
RESERVED_FEATURES: Mapping[str, str] = {
    "prediction": "the model's own prediction",
    "score": "the model's own score",
    MULTIVARIATE: "all numeric features together",
}
"""Name → what it is in verdicts and alerts."""
FIELDS = (
    "id",
    "ts",
    "model",
    "version",
    "features",
    "prediction",
    "score",
    "latency_ms",
    "error",
    "segment",
)


class Topics(Section):
    """Names and shape of the topics driftline writes."""

    prefix: Annotated[str, BeforeValidator(topic_prefix)] = "driftline"
    partitions: Annotated[int, BeforeValidator(integer(1, 10_000, 4))] = 4
    replication_factor: Annotated[int, BeforeValidator(integer(1, 1_000, 3))] = 1
    panes: Annotated[str, BeforeValidator(topic_name)]
    drift: Annotated[str, BeforeValidator(topic_name)]
    alerts: Annotated[str, BeforeValidator(topic_name)]
    dead_letters: Annotated[str, BeforeValidator(topic_name)]
    state: Annotated[str, BeforeValidator(topic_name)]

    @property
    def names(self) -> dict[str, str]:
        """Key in this section → name of the topic."""
        return {key: getattr(self, key) for key in TOPIC_KEYS}

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        prefix = data.get("prefix", "driftline")
        # A wrong prefix is reported once, at its own key, not again with each name.
        if not isinstance(prefix, str) or not TOPIC_NAME.fullmatch(prefix[:MAX_PREFIX]):
            prefix = "driftline"
        names = {key: f"{prefix[:MAX_PREFIX]}.{key.replace('_', '-')}" for key in TOPIC_KEYS}
        return {**names, **data}

    @model_validator(mode="after")
    def _distinct(self) -> Topics:
        users: dict[str, str] = {}
        for key, name in self.names.items():
            other = users.setdefault(name, key)
            if other != key:
                rule = f"each kind of message has its own topic, and this one is `{other}`"
                raise mistaken(Mistake((key,), name, rule, "write another name"))
        return self


class Ingest(Section):
    """How much ingest puts into one transaction."""

    batch_events: Annotated[int, BeforeValidator(integer(1, 10_000_000, 50_000))] = 50_000
    commit_interval_ms: Annotated[int, BeforeValidator(duration(1, "250ms"))] = Field(
        250, alias="commit_interval"
    )


class Alerts(Section):
    """What an alert is about, and when it ends."""

    resolve_after: Annotated[int, BeforeValidator(integer(1, 1_000_000, 1))] = 1
    """Number of consecutive quiet looks, at every window that drifted, that resolve an alert."""
    group_by: Annotated[str, BeforeValidator(one_of("model", "feature"))] = "model"
    """`model`: one alert per model or segment, which lists the features; `feature`: one of each."""


class Input(Section):
    """Where a model's events come from and how they are read."""

    topic: Annotated[str, BeforeValidator(topic_name)]
    format: Annotated[str, BeforeValidator(one_of("json"))] = "json"
    fields: dict[str, tuple[str, ...]] | None = None
    """Our name → keys from the root of the event. None is driftline's preferred event; with a
    mapping, the names left out keep the place they have there (`id` is `$.id`)."""
    max_message_bytes: Annotated[int, BeforeValidator(size_bytes)] = 1_048_576
    max_ahead_ms: Annotated[int, BeforeValidator(duration(0, "1h"))] = Field(
        3_600_000, alias="max_ahead"
    )
    """How far an event time may lie ahead of its Kafka timestamp; beyond it, a dead letter."""
    missing_time: Annotated[
        Literal["dead_letter", "kafka"], BeforeValidator(one_of("dead_letter", "kafka"))
    ] = "dead_letter"
    """What an event without a time is: a dead letter, or one of its Kafka timestamp's moment."""

    @field_validator("fields", mode="before")
    @classmethod
    def _fields(cls, value: object) -> object:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            remedy = "write for example fields: {id: $.request.uuid}"
            raise wrong(value, "fields is a mapping of driftline's names to paths", remedy)
        mistakes: list[Mistake] = []
        paths: dict[str, tuple[str, ...]] = {}
        for name, text in value.items():
            if problem := _field_problem(name, text):
                mistakes.append(Mistake((name,), *problem))
                continue
            try:
                paths[name] = parse_path(text)
            except ValueError as error:
                remedy = "write for example $.request.uuid"
                mistakes.append(Mistake((name,), text, str(error), remedy))
                continue
            if not paths[name] and name not in ("features", "segment"):
                rule = "the event itself can only be `features` or `segment`"
                mistakes.append(Mistake((name,), text, rule, f"name a key, such as $.{name}"))
        for name, other in conflicts(paths):
            rule = f"{other} is read from the same place, and a place serves one field"
            mistakes.append(Mistake((name,), value[name], rule, "map one of them elsewhere"))
        if mistakes:
            raise mistaken(*mistakes)
        return paths


def conflicts(
    paths: Mapping[str, tuple[str, ...]], features: Iterable[str] = ()
) -> Iterator[tuple[str, str]]:
    """(name, other name) of fields read from one place, or one from inside the other.

    features: names that are read from the object `features` unless `paths` maps them. `id`, `ts`,
    `model` and `version` are always read.
    """
    box = paths.get("features", ("features",))
    places = {name: (name,) for name in ("id", "ts", "model", "version")}
    places |= {f"features.{name}": (*box, name) for name in features}
    # Objects may hold other fields, and the last two are not read by this version.
    skipped = ("features", "segment", "latency_ms", "error")
    places |= {name: keys for name, keys in paths.items() if name not in skipped}
    users: dict[tuple[str, ...], str] = {}
    for name, keys in sorted(places.items(), key=lambda item: len(item[1])):
        other = next((users[keys[:i]] for i in range(len(keys) + 1) if keys[:i] in users), None)
        if other is not None:
            # Blame what the file says, not what it leaves at its place.
            said = name in paths or name.startswith("features.")
            yield (name, other) if said else (other, name)
        users[keys] = name


def _field_problem(name: str, text: object) -> tuple[object, str, str] | None:
    head, dot, rest = name.partition(".")
    if dot and head in ("features", "segment") and rest:
        if head == "features" and rest in RESERVED_FEATURES:
            return reserved_feature(rest)
    elif name not in FIELDS:
        theirs = name.lower().replace("-", "_")
        known = [ours for ours, others in OTHER_NAMES.items() if theirs in others]
        near = known[0] if known else nearest(name, FIELDS)
        rule = f"driftline's names are {', '.join(FIELDS)}, features.<name> and segment.<name>"
        return name, rule, f"write {near}" if near else "write one of them, or remove it"
    elif isinstance(text, Mapping) and head in ("features", "segment"):
        inner = next(iter(text), "name")
        rule = "a single feature or segment is mapped by its name after a dot"
        return text, rule, f"write {head}.{inner}: $.…"
    return None


def reserved_feature(name: str) -> tuple[str, str, str]:
    rule = f"the name `{name}` is reserved for {RESERVED_FEATURES[name]} in verdicts and alerts"
    free = f"{name.strip('()')}_in"
    remedy = f"give the feature another name in input.fields: features.{free}: $.features.{name}"
    return name, rule, remedy
