"""driftline.yaml, read whole: every mistake in it is found in one go and named at its line.

`load` is the way in. Where a file has `model: fraud` and that model's keys at the top level, or
`models:` with a mapping of names (the top-level keys then being defaults for all of them), the
result is the same: `Config.models`, each model complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...schemas.errors import ABSENT, ConfigError, Problem
from .kafka import Kafka, Role, check_kafka_properties, read_properties
from .models import BUDGET_DETECTORS, DEFAULT_DETECTORS, Config, Kind, ModelConfig
from .sections import FIELDS, RESERVED_FEATURES, Alerts, Ingest, Input, Topics
from .values import Mistake, format_path, nearest, parse_path
from .yaml_text import Path as Place
from .yaml_text import Tree, read_yaml, show_path

__all__ = [
    "BUDGET_DETECTORS",
    "DEFAULT_DETECTORS",
    "FIELDS",
    "MODEL_KEYS",
    "RESERVED_FEATURES",
    "SHARED_KEYS",
    "Alerts",
    "Config",
    "Ingest",
    "Input",
    "Kafka",
    "Kind",
    "ModelConfig",
    "Role",
    "Topics",
    "check_kafka_properties",
    "format_path",
    "load",
    "parse_path",
]

MODEL_KEYS = tuple(
    field.alias or name for name, field in ModelConfig.model_fields.items() if name != "name"
)
SHARED_KEYS = ("kafka", "group", "topics", "ingest", "alerts")
# Sections whose keys a model takes over one by one from the top level; others it replaces whole.
MERGED_KEYS = ("input", "detectors")

REQUIRED: dict[str, tuple[str, str]] = {
    "kafka": ("how to reach the brokers", "write `kafka: {bootstrap.servers: localhost:9092}`"),
    "input": ("where the model's events come from", "write `input: {topic: inference}`"),
    "topic": ("the topic with the model's events", "write `topic: inference`"),
    "reference": (
        "the reference profile to compare with",
        "write `reference: ./reference`, the directory `driftline fit` writes",
    ),
    "windows": (
        "how much of the stream one test looks at",
        "write `windows: [5m, 1h, 2000 events]`",
    ),
}


def load(
    path: Path | str,
    *,
    overrides: Mapping[str, Any] | None = None,
    detectors: Collection[str] | None = None,
) -> Config:
    """The configuration in the file `path`.

    overrides: keys as in the file, nested as in the file, that win over it.
    detectors: the detectors that exist, either their names, or a mapping of name to the kinds of
        feature each can test. None asks `driftline.detectors`.

    Raises ConfigError with a `Problem` for every mistake, in the order of the file. Nothing
    connects to a broker.
    """
    path = Path(path)
    tree, problems = read_yaml(path)
    document = _overlay(tree, overrides or {}, ())
    reader = _Reader(str(path), tree, document)
    context = {
        "directory": path.absolute().parent,
        "detectors": _known_detectors() if detectors is None else detectors,
    }
    config = reader.read(path, context)
    # What YAML could not read is missing below, and once is enough.
    unread = {problem.path for problem in problems}
    problems += [problem for problem in reader.problems if problem.path not in unread]
    if problems or config is None:
        # Two models that take one wrong default from the top level have one mistake, not two.
        unique = {(p.path, p.line, p.rule): p for p in problems}
        last = float("inf")
        raise ConfigError(sorted(unique.values(), key=lambda p: last if p.line is None else p.line))
    return config


def _known_detectors() -> Mapping[str, Collection[str]]:
    # Imported here since it loads scipy, and other packages through entry points.
    from ...detectors.base import detectors

    return {name: detector.kinds for name, detector in detectors().items()}


def _overlay(tree: Tree, overrides: Mapping[str, Any], at: Place) -> dict[str, Any]:
    """The tree with `overrides` laid over it; an overridden value has no line in the file."""
    base: Any = tree.value
    for key in at:
        base = base.get(key) if isinstance(base, Mapping) else None
    merged = dict(base) if isinstance(base, Mapping) else {}
    for key, value in overrides.items():
        place = (*at, str(key))
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[str(key)] = _overlay(tree, value, place)
            continue
        merged[str(key)] = value
        for known in [p for p in tree.lines if p[: len(place)] == place]:
            tree.lines[known] = 0
        tree.lines[place] = 0
    return merged


class _Reader:
    """Validates a document and says where in the file each mistake lies."""

    def __init__(self, file: str, tree: Tree, document: dict[str, Any]) -> None:
        self.file = file
        self.tree = tree
        self.document = document
        self.problems: list[Problem] = []

    def read(self, path: Path, context: Mapping[str, Any]) -> Config | None:
        document = {key: self.document[key] for key in SHARED_KEYS if key in self.document}
        # A section left empty (`topics:` and nothing below it) is one without settings.
        for key in ("topics", "ingest", "alerts"):
            if document.get(key, {}) is None:
                document[key] = {}
        document.setdefault("topics", {})
        models = self._models()
        self._unknown(self.document, (), (*SHARED_KEYS, "model", "models", *MODEL_KEYS))
        document |= {"path": path, "models": models}
        try:
            config = Config.model_validate(document, context=dict(context))
        except ValidationError as error:
            config = None
            self._collect(error)
        self._one_section_per_topic(models)
        kafka = document.get("kafka")
        if not any(problem.path.startswith("kafka") for problem in self.problems):
            self._ask_librdkafka(kafka if config is None else config.kafka)
        return config

    def _models(self) -> dict[str, dict[str, Any]]:
        """Name → the keys of that model, with the top-level ones as defaults."""
        defaults = {key: self.document[key] for key in MODEL_KEYS if key in self.document}
        one, many = self.document.get("model"), self.document.get("models")
        if "model" in self.document and "models" in self.document:
            rule = "a file has either `model: <name>` or `models:`"
            self._report(("model",), one, rule, "move this model below models")
            return {}
        if "model" in self.document:
            return {str(one): {"name": one, **defaults}}
        example = "write `model: fraud`, or `models: {fraud: {…}, churn: {…}}`"
        if "models" not in self.document:
            self._report((), ABSENT, "the file names no model", example)
            return {}
        if not isinstance(many, Mapping) or not many:
            rule = "models is a mapping of at least one name to that model's keys"
            self._report(("models",), many, rule, example)
            return {}
        models: dict[str, dict[str, Any]] = {}
        for name, own in many.items():
            own = {} if own is None else own
            if not isinstance(own, Mapping):
                rule = "a model is a mapping of keys to values"
                self._report(("models", name), own, rule, f"write {name}: {{windows: [5m]}}")
                continue
            self._unknown(own, ("models", name), MODEL_KEYS)
            merged = {**defaults, **{key: own[key] for key in MODEL_KEYS if key in own}}
            for key in MERGED_KEYS:
                top, inner = defaults.get(key), own.get(key)
                if isinstance(top, Mapping) and isinstance(inner, Mapping):
                    merged[key] = {**top, **inner}
            models[name] = {"name": name, **merged}
        return models

    def _unknown(self, section: Mapping[str, Any], at: Place, known: Collection[str]) -> None:
        for key in section:
            if key not in known:
                self._report_unknown((*at, key), known)

    def _report_unknown(self, place: Place, known: Collection[str]) -> None:
        # The value stays unsaid: it may be a password whose line has slipped out of `kafka`.
        near = nearest(place[-1], known)
        remedy = f"write {near}" if near else f"remove it; the keys are {', '.join(known)}"
        self._report(place, ABSENT, "there is no such key", remedy)

    def _collect(self, error: ValidationError) -> None:
        for item in error.errors(include_url=False, include_input=True):
            place: Place = tuple(item["loc"])
            mistakes: list[Mistake] = item.get("ctx", {}).get("mistakes", [])
            for mistake in mistakes:
                self._report((*place, *mistake.at), mistake.value, mistake.rule, mistake.remedy)
            if mistakes:
                continue
            if item["type"] == "missing":
                what, remedy = REQUIRED[str(place[-1])]
                self._report(place, ABSENT, f"the key is required: {what}", remedy)
            elif item["type"] == "extra_forbidden":
                self._report_unknown(place, _keys_of(place))
            else:
                keys = ", ".join(_keys_of((*place, "")))
                rule = f"must be a mapping with keys of {keys}" if keys else item["msg"].lower()
                self._report(place, item["input"], rule, f"write {place[-1]}: {{…}}")

    def _report(self, place: Place, value: object, rule: str, remedy: str) -> None:
        place = self._origin(place)
        line = self.tree.line(place)
        if line == 0:
            remedy += " (the value comes from an override, not from the file)"
        self.problems.append(
            Problem(show_path(place), line or None, value, rule, remedy, self.file)
        )

    def _origin(self, place: Place) -> Place:
        """Where in the file the value at `place` of the assembled document was written."""
        if place[:1] != ("models",) or len(place) < 3:
            # `model: 7` at the top level is validated as the name of a model.
            return place
        inner = place[2:]
        if "models" not in self.document:
            return ("model",) if inner == ("name",) else inner
        if inner == ("name",):
            return place[:2]
        depth = 4 if inner[0] in MERGED_KEYS else 3
        own = place[: min(depth, len(place))]
        if own in self.tree.lines:
            return place
        top = inner[: depth - 2]
        return inner if top in self.tree.lines else place

    def _one_section_per_topic(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        first: dict[str, tuple[str, Input]] = {}
        own_topics = set(_own_topics(self.document.get("topics")))
        for name, model in models.items():
            try:
                section = Input.model_validate(model.get("input"))
            except ValidationError:
                continue
            place = ("models", name, "input")
            if section.topic in own_topics:
                rule = "driftline writes this topic itself, so it would read its own results"
                self._report((*place, "topic"), section.topic, rule, "name your events' topic")
            other, same = first.setdefault(section.topic, (name, section))
            if section != same:
                rule = (
                    f"models {other} and {name} read one topic, and each of its messages is"
                    " decoded once, for both: their `input` must be equal"
                )
                remedy = "write `input` once at the top level, or use two topics"
                self._report(place, section.topic, rule, remedy)

    def _ask_librdkafka(self, section: object) -> None:
        kafka = section
        if not isinstance(kafka, Kafka):
            kafka = read_properties(section)
        raw = self.document.get("kafka", {})
        for name, message in check_kafka_properties(kafka.client_properties()):
            value, shown = kafka.properties.get(name), ABSENT
            unknown = message.startswith("No such configuration property")
            # Only where the name is right and the value wrong is the value shown: an unknown
            # property may be a misspelt password. What the environment gave is not repeated.
            if message.startswith(_VALUE_COMPLAINTS) and isinstance(value, str | int | float):
                shown = raw.get(name, ABSENT)
                if isinstance(value, str) and value and value != shown:
                    message = message.replace(value, str(shown))
            place = ("kafka", name) if name else ("kafka",)
            self._report(place, shown, f"librdkafka refuses it: {message}", _kafka_remedy(unknown))


# How librdkafka begins when the property exists and its value is wrong.
_VALUE_COMPLAINTS = ("Invalid value", "Expected", "Configuration property", "Integer", "Value")


def _kafka_remedy(unknown: bool) -> str:
    if unknown:
        return "check the spelling against librdkafka's CONFIGURATION.md, or remove it"
    return "see the property in librdkafka's CONFIGURATION.md"


def _own_topics(section: object) -> Iterator[str]:
    try:
        yield from Topics.model_validate(section or {}).names.values()
    except ValidationError:
        return


def _keys_of(place: Place) -> tuple[str, ...]:
    """The keys of the section that holds `place`."""
    sections = {"topics": Topics, "ingest": Ingest, "alerts": Alerts, "input": Input}
    for part in reversed(place[:-1]):
        if part in sections:
            fields = sections[str(part)].model_fields
            return tuple(field.alias or name for name, field in fields.items())
    return ()
