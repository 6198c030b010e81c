"""The keys of driftline.yaml: types, defaults and rules.

Attributes carry their unit (`pane_ms`), the keys of the file do not (`pane: 1m`). Every validator
reports through `mistaken`, so that `config.load` can say value, rule and remedy of each mistake at
its line. Rules that bind keys of one model to each other look at the keys validated before them
and skip those that are wrong themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ...detectors.vectors import VectorSpec
from ...schemas.errors import ABSENT
from ...schemas.units import (
    EventWindow,
    FalseAlarms,
    TimeWindow,
    Window,
    format_duration,
    parse_window,
)
from .against import Against, against_mistakes, read_against
from .kafka import Kafka, Role, read_properties
from .sections import (
    RESERVED_FEATURES,
    Alerts,
    Ingest,
    Input,
    Topics,
    conflicts,
    reserved_feature,
)
from .values import (
    Mistake,
    Section,
    budget,
    duration,
    integer,
    level,
    mistaken,
    model_name,
    nearest,
    one_of,
    plain_name,
    slot_count,
    wrong,
)
from .vectors import VECTOR_KINDS, read_vector_feature

Kind: TypeAlias = Literal["numeric", "categorical", "boolean"]
KINDS: tuple[str, ...] = ("numeric", "categorical", "boolean", "text", "vector")
DEFAULT_DETECTORS: Mapping[str, tuple[str, ...]] = {
    "numeric": ("ks", "missing_rate"),
    "categorical": ("chi_squared",),
    "multivariate": (),
}
"""Under `alpha`: their p-values are exact, as a level of one look needs them."""
BUDGET_DETECTORS: Mapping[str, tuple[str, ...]] = {
    "numeric": ("ks", "shiryaev_roberts", "missing_rate"),
    "categorical": ("chi_squared", "shiryaev_roberts"),
    "multivariate": ("shiryaev_roberts",),
}
"""Under `false_alarms`: levels are found for whatever p-values there are, and these tell soonest."""


class ModelConfig(Section):
    """One monitored model, complete: defaults filled in, paths resolved."""

    name: Annotated[str, BeforeValidator(model_name)]
    input: Input
    reference: str
    """Directory or fsspec URL of the reference profile; absolute where it is a path."""
    # No divisor of a day is asked for: panes are aligned to the epoch, not to midnight, so a pane
    # of 7m is a slice like any other and merely does not begin with the day.
    pane_ms: Annotated[int, BeforeValidator(duration(1, "1m"))] = Field(60_000, alias="pane")
    allowed_lateness_ms: Annotated[int, BeforeValidator(duration(0, "10s"))] = Field(
        10_000, alias="allowed_lateness"
    )
    idle_after_ms: Annotated[int, BeforeValidator(duration(1, "30s"))] = Field(
        30_000, alias="idle_after"
    )
    retention_ms: Annotated[int, BeforeValidator(duration(1, "7d"))] = Field(
        604_800_000, alias="retention"
    )
    """How long panes are kept. A window counted in events looks back no further than this."""
    against: Against | None = None
    """What windows are compared with beside or in place of the fitted reference, whose cells stay."""
    windows: tuple[Window, ...]
    segment_by: tuple[str, ...] = ()
    """Keys of the event's `segment` object; `version` is the event's version."""
    features: dict[str, Kind | VectorSpec] | Literal["auto"] = "auto"
    groups: dict[str, VectorSpec] = Field(default_factory=dict)
    """Numeric features that are tested together, as one vector each."""
    prediction: Annotated[
        Literal["auto", "numeric", "categorical", "off"],
        BeforeValidator(one_of("auto", "numeric", "categorical", "off")),
    ] = "auto"
    score: Annotated[
        Literal["auto", "numeric", "off"], BeforeValidator(one_of("auto", "numeric", "off"))
    ] = "auto"
    alpha: Annotated[float, BeforeValidator(level)] = 0.01
    """Level of one look at the whole model, shared out among its tests."""
    false_alarms: Annotated[FalseAlarms, BeforeValidator(budget)] | None = None
    """How often the whole model may alarm for nothing; in place of `alpha`."""
    detectors: dict[str, tuple[str, ...]] = Field({}, validate_default=True)
    """Kind → names of detectors; a boolean feature is tested as a categorical one, and all numeric
    features together, as one vector, as `multivariate`. A kind that is not named has those of
    `BUDGET_DETECTORS` or `DEFAULT_DETECTORS`; `multivariate` none where `numeric` is named."""
    min_events: Annotated[int, BeforeValidator(integer(2, 1_000_000_000, 30))] = 30
    slots: Annotated[int | Literal["exact"], BeforeValidator(slot_count)] = "exact"
    max_categories: Annotated[int, BeforeValidator(integer(2, 1_000_000, 1000))] = 1000

    def detectors_for(self, kind: str) -> tuple[str, ...]:
        """Names of the windowed detectors a feature of `kind` is tested with."""
        if kind in VECTOR_KINDS:
            return ()
        return self.detectors["categorical" if kind == "boolean" else kind]

    @property
    def kinds(self) -> dict[str, Kind]:
        """Name → kind of the features that are counted; none where `features` is `auto`."""
        named = {} if self.features == "auto" else self.features
        return {name: kind for name, kind in named.items() if not isinstance(kind, VectorSpec)}

    @property
    def vectors(self) -> dict[str, VectorSpec]:
        """Name → what is known of the features that are vectors: texts, vectors, groups."""
        named = {} if self.features == "auto" else self.features
        own = {name: spec for name, spec in named.items() if isinstance(spec, VectorSpec)}
        return own | self.groups

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: object, info: ValidationInfo) -> str:
        if not isinstance(value, str) or not value.strip():
            rule = "reference is a directory, or a URL such as s3://bucket/reference"
            raise wrong(value, rule, "write for example ./reference")
        if "://" in value:
            return value
        directory = (info.context or {}).get("directory", ".")
        return os.path.normpath(os.path.join(os.path.abspath(directory), os.path.expanduser(value)))

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if self.false_alarms is not None and "alpha" in self.model_fields_set:
            rule = "alpha and false_alarms both say when a test decides"
            remedy = "remove one of them"
            raise mistaken(Mistake(("false_alarms",), self.false_alarms.label, rule, remedy))
        return self

    @model_validator(mode="after")
    def _goes_with_against(self) -> Self:
        if self.against is not None:
            mistakes = against_mistakes(
                self.against,
                self.windows,
                self.detectors,
                vectors=tuple(self.vectors),
                budget=self.false_alarms,
                lateness_ms=self.allowed_lateness_ms,
                retention_ms=self.retention_ms,
            )
            if mistakes:
                raise mistaken(*mistakes)
        return self

    @field_validator("against", mode="before")
    @classmethod
    def _against(cls, value: object, info: ValidationInfo) -> Against | None:
        return None if value is None else read_against(value, info.data)

    @field_validator("windows", mode="before")
    @classmethod
    def _windows(cls, value: object, info: ValidationInfo) -> tuple[Window, ...]:
        if isinstance(value, str):
            raise wrong(value, "windows is a list", f"write [{value}]")
        if not isinstance(value, list | tuple) or not value:
            rule = "windows is a list with at least one window"
            raise wrong(value, rule, "write for example [5m, 1h, 2000 events]")
        windows: list[Window] = []
        mistakes: list[Mistake] = []
        for i, spec in enumerate(value):
            try:
                window = parse_window(spec)
            except ValueError as error:
                mistakes.append(Mistake((i,), spec, str(error), "write for example 5m"))
                continue
            if isinstance(window, TimeWindow):
                mistakes += [Mistake((i,), spec, *p) for p in _window_problems(window, info.data)]
            # Compared apart from their labels: 60m and 1h would test the same events twice.
            for other in windows:
                if window.label == other.label or _extent(window) == _extent(other):
                    rule = f"each window is listed once, and `{other.label}` is the same"
                    mistakes.append(Mistake((i,), spec, rule, "remove one of them"))
            windows.append(window)
        if mistakes:
            raise mistaken(*mistakes)
        return tuple(windows)

    @field_validator("segment_by", mode="before")
    @classmethod
    def _segment_by(cls, value: object) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            remedy = "write for example [country]"
            raise wrong(value, "segment_by is a list of keys of the event's segment", remedy)
        mistakes: list[Mistake] = []
        for i, name in enumerate(names):
            if not isinstance(name, str) or not re.fullmatch(r"[^\s|=]{1,200}", name):
                rule = "a segment's name has 1 to 200 characters, without spaces, | and ="
                mistakes.append(Mistake((i,), name, rule, "write for example country"))
            elif name in names[:i]:
                mistakes.append(Mistake((i,), name, "each name is listed once", "remove it"))
        if mistakes:
            raise mistaken(*mistakes)
        return tuple(names)

    @field_validator("features", mode="before")
    @classmethod
    def _features(cls, value: object, info: ValidationInfo) -> object:
        if value == "auto":
            return value
        if not isinstance(value, Mapping):
            rule = "features is `auto`, or a mapping of names to kinds"
            raise wrong(value, rule, "write for example {amount: numeric, merchant: categorical}")
        mistakes: list[Mistake] = []
        kinds: dict[str, object] = {}
        for name, spec in value.items():
            at: tuple[str | int, ...] = (name,)
            if name in RESERVED_FEATURES:
                mistakes.append(Mistake(at, *reserved_feature(name)))
            if not name:
                mistakes.append(Mistake(at, name, "a feature has a name", "write one"))
            kind = spec.get("kind") if isinstance(spec, Mapping) else spec
            if kind in ("text", "vector"):
                section = spec if isinstance(spec, Mapping) else {}
                found, wrong_keys = read_vector_feature(kind, section)
                mistakes += [Mistake((name, *m.at), m.value, m.rule, m.remedy) for m in wrong_keys]
                if found is not None:
                    kinds[name] = found
                continue
            if isinstance(spec, Mapping):
                for key in spec:
                    if key != "kind":
                        rule = "there is no such key; a feature has a `kind`"
                        mistakes.append(Mistake((*at, key), ABSENT, rule, "write kind: numeric"))
                if "kind" not in spec and spec:
                    continue
                at, spec = (*at, "kind"), spec.get("kind", ABSENT)
            if spec not in KINDS:
                near = nearest(spec, KINDS) or "numeric"
                rule = f"the kind of a feature is one of {', '.join(KINDS)}"
                mistakes.append(Mistake(at, spec, rule, f"write {near}"))
            else:
                kinds[name] = spec
        source = info.data.get("input")
        fields = source.fields or {} if source is not None else {}
        for name, other in conflicts(fields, kinds):
            # What contradicts itself within input.fields is reported there.
            if (feature := name.removeprefix("features.")) in kinds and name not in fields:
                rule = f"the feature is read from the same place as {other}"
                remedy = f"leave it out, or map it elsewhere: input.fields.features.{feature}"
                mistakes.append(Mistake((feature,), value[feature], rule, remedy))
        if mistakes:
            raise mistaken(*mistakes)
        return kinds

    @field_validator("groups", mode="before")
    @classmethod
    def _groups(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Mapping):
            rule = "groups is a mapping of names to features that are tested together"
            raise wrong(value, rule, "write for example {weather: [temp, wind]}")
        features = info.data.get("features", {})
        mistakes: list[Mistake] = []
        groups: dict[str, object] = {}
        for name, spec in value.items():
            section = spec if isinstance(spec, Mapping) else {"features": spec}
            found, wrong_keys = read_vector_feature("group", section)
            mistakes += [Mistake((name, *m.at), m.value, m.rule, m.remedy) for m in wrong_keys]
            if name in features or name in RESERVED_FEATURES:
                rule = "a group and a feature cannot have one name: verdicts go by it"
                mistakes.append(Mistake((name,), name, rule, "name the group otherwise"))
            if found is None:
                continue
            groups[name] = found
            if features != "auto":
                for member in found.members:
                    if features.get(member) != "numeric":
                        rule = f"a group is made of numeric features, and {member} is none"
                        remedy = f"list it in features, or take it out of {name}"
                        mistakes.append(Mistake((name, "features"), member, rule, remedy))
        if mistakes:
            raise mistaken(*mistakes)
        return groups

    @field_validator("detectors", mode="before")
    @classmethod
    def _detectors(cls, value: object, info: ValidationInfo) -> object:
        known = (info.context or {}).get("detectors")
        if not isinstance(value, Mapping):
            rule = (
                "detectors is a mapping of numeric, categorical and multivariate "
                "to lists of detectors"
            )
            raise wrong(value, rule, "write for example {numeric: [ks]}")
        mistakes: list[Mistake] = []
        has_budget = info.data.get("false_alarms") is not None
        chosen = dict(BUDGET_DETECTORS if has_budget else DEFAULT_DETECTORS)
        if "numeric" in value:
            chosen["multivariate"] = ()
        for kind, names in value.items():
            if kind not in DEFAULT_DETECTORS:
                rule = (
                    "detectors are chosen for numeric and for categorical features, and for all "
                    "numeric ones together (multivariate)"
                )
                near = "categorical" if kind == "boolean" else nearest(kind, DEFAULT_DETECTORS)
                mistakes.append(Mistake((kind,), kind, rule, f"write {near or 'numeric'}"))
            elif not isinstance(names, list | tuple) or (DEFAULT_DETECTORS[kind] and not names):
                usual = DEFAULT_DETECTORS[kind]
                rule = f"must be a list {'with at least one detector' if usual else 'of detectors'}"
                example = f"[{', '.join(usual or ['shiryaev_roberts'])}]"
                mistakes.append(Mistake((kind,), names, rule, f"write for example {example}"))
            else:
                mistakes += _detector_mistakes(kind, names, known)
                chosen[kind] = tuple(names)
        if mistakes:
            raise mistaken(*mistakes)
        return chosen


def _extent(window: Window) -> tuple[int, int | None]:
    if isinstance(window, EventWindow):
        return (-window.events, None)
    return (window.size_ms, window.hop_ms)


def _window_problems(window: TimeWindow, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(rule, remedy) of each rule that binds a window to the keys above it.

    `data` has those of the keys that are themselves right, so a wrong pane is not reported again
    with every window.
    """
    problems: list[tuple[str, str]] = []
    hop_ms = window.hop_ms
    if hop_ms is not None and hop_ms > window.size_ms:
        rule = "a hop longer than its window leaves gaps, whose events nothing would test"
        problems.append((rule, f"write a hop of at most {format_duration(window.size_ms)}"))
    if (pane_ms := data.get("pane_ms")) is not None:
        pane = format_duration(pane_ms)
        for what, length_ms in (("size", window.size_ms), ("hop", hop_ms)):
            if length_ms is not None and length_ms % pane_ms:
                rule = f"a window is made of whole panes, so its {what} is a multiple of {pane}"
                near = format_duration(max(1, round(length_ms / pane_ms)) * pane_ms)
                problems.append((rule, f"write {near}, or choose another pane"))
    lateness_ms = data.get("allowed_lateness_ms")
    retention_ms = data.get("retention_ms")
    if lateness_ms is not None and retention_ms is not None:
        # A window closes only allowed_lateness after its end, and needs its first pane until then.
        needed_ms = window.size_ms + lateness_ms
        if needed_ms > retention_ms:
            rule = (
                f"panes are kept for {format_duration(retention_ms)} (retention), and this window"
                f" with allowed_lateness needs them for {format_duration(needed_ms)}"
            )
            days = -(-needed_ms // 86_400_000)
            problems.append((rule, f"write a shorter window, or retention: {days}d"))
    return problems


def _detector_mistakes(kind: str, names: Collection[Any], known: Any) -> list[Mistake]:
    fits: Any = known if isinstance(known, Mapping) else None
    mistakes: list[Mistake] = []
    seen: list[object] = []
    for i, name in enumerate(names):
        # A boolean feature is tested as a categorical one.
        of_kind = {kind, "boolean"} if kind == "categorical" else {kind}
        usable = [n for n in known or () if fits is None or of_kind & set(fits[n])]
        of = "all numeric features together" if kind == "multivariate" else f"{kind} features"
        if name in seen:
            mistakes.append(Mistake((kind, i), name, "each detector is listed once", "remove it"))
        elif not isinstance(name, str) or (known is not None and name not in usable):
            what = "detectors" if fits is None else f"detectors for {of}"
            rule = f"{what} are {', '.join(sorted(usable))}" if known else "must be a name"
            near = nearest(name, usable) or (min(usable) if usable else "ks")
            mistakes.append(Mistake((kind, i), name, rule, f"write {near}"))
        seen.append(name)
    return mistakes


class Config(Section):
    """A whole driftline.yaml."""

    path: Path = Field(exclude=True)
    kafka: Annotated[Kafka, BeforeValidator(read_properties)]
    group: Annotated[str, BeforeValidator(plain_name)] = "driftline"
    """Prefix of the consumer groups: `<group>-ingest` and so on."""
    topics: Topics
    ingest: Ingest = Ingest()  # pyright: ignore[reportCallIssue]
    alerts: Alerts = Alerts()
    models: dict[str, ModelConfig]

    def client_properties(self, role: Role | None = None) -> dict[str, Any]:
        """Kafka client properties with secrets in the clear; see `Kafka.client_properties`."""
        return self.kafka.client_properties(role)

    def digest(self) -> str:
        """SHA-256 of what the file means: not its layout, its comments, its place or its secrets.

        A reference inside the file's directory counts by its relative path, so that a directory
        that is copied elsewhere keeps its digest.
        """
        content = self.model_dump(mode="json")
        content["kafka"] = {
            name: value
            for name, value in self.kafka.properties.items()
            if not isinstance(value, SecretStr)
        }
        directory = os.path.dirname(os.path.abspath(self.path))
        for model in content["models"].values():
            if model["reference"].startswith(directory + os.sep):
                model["reference"] = Path(os.path.relpath(model["reference"], directory)).as_posix()
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
