"""`driftline fit`: reference rows → profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..detectors.fitting import LeftOut, fit, infer_kind
from ..detectors.multivariate import MULTIVARIATE, why_not
from ..detectors.profile import Kind, Profile, category_name, column_kind
from ..schemas.errors import DriftlineError, EventError, ProfileError
from ..schemas.verdict import unit_key
from .config.document import RESERVED_FEATURES, ModelConfig
from .config.sections import reserved_feature
from .decode import UNREADABLE, UNREADABLE_KEY, Decoder, Wanted, event_time, parse_json, show_path
from .fit_vectors import reference_vectors
from .profiles import Reference

# A class label written as a number is still a class: so many distinct whole numbers at most.
_MOST_CLASSES = 20


@dataclass(slots=True)
class Rows:
    """Reference rows as columns, collected from events.

    refused: events that are none, with the first reasons. reserved: names that features have in the
    events and cannot have here. times_ms: event times, None where a row does not tell it; empty
    unless `timed`, since only a calibration needs them.
    """

    model: ModelConfig
    timed: bool = False
    n: int = 0
    others: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    reserved: set[str] = field(default_factory=set)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    times_ms: list[int | None] = field(default_factory=list)
    segments: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, value: bytes | None) -> None:
        """Take in one message; ids and event times are not needed for a reference."""
        try:
            if value is None:
                raise EventError("tombstone", "the message has no value")
            event = parse_json(value)
            if not isinstance(event, dict):
                raise EventError("not_an_object", "the value is JSON, but not an object")
            name = self._at(event, "model")
            if name is not None and name != self.model.name:
                self.others += 1
                return
            row = self._features(event)
            segment = [self._segment(event, name) for name in self.model.segment_by]
            time_ms = self._time(event) if self.timed else None
        except EventError as error:
            self.refused += 1
            if len(self.reasons) < 5:
                self.reasons.append(str(error))
            return
        for name, item in row.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = [None] * self.n
            column.append(item)
        self.n += 1
        if self.timed:
            self.times_ms.append(time_ms)
        for column in self.columns.values():
            if len(column) < self.n:
                column.append(None)
        if self.model.segment_by:
            self.segments.append(tuple(category_name(value) or "" for value in segment))

    def by_segment(self, order: Iterable[int]) -> dict[tuple[str, ...], list[int]]:
        """The rows of each segment, in the order given; none where the model has no segments."""
        found: dict[tuple[str, ...], list[int]] = {}
        if self.model.segment_by:
            for i in order:
                found.setdefault(self.segments[i], []).append(i)
        return found

    def _time(self, event: Mapping[str, Any]) -> int | None:
        try:
            value = self._at(event, "ts")
            return None if value is None else event_time(value)
        except EventError:
            return None

    def _at(self, event: Mapping[str, Any], name: str) -> Any:
        path = (self.model.input.fields or {}).get(name, (name,))
        found: Any = event
        for depth, key in enumerate(path):
            if found is None:
                return None
            if not isinstance(found, dict):
                raise EventError(
                    "wrong_type",
                    f"{show_path(path[:depth])} is not an object, so there is no {show_path(path)}",
                )
            found = found.get(key)
        return found

    def _features(self, event: Mapping[str, Any]) -> dict[str, Any]:
        fields = self.model.input.fields or {}
        features = self._at(event, "features")
        if features is not None and not isinstance(features, dict):
            raise EventError("wrong_type", "the features are not an object")
        row: dict[str, Any] = dict(features or {})
        if fields.get("features") == ():
            # The whole event is the features: what has another name already is none of them.
            taken = [p for name, p in fields.items() if not name.startswith("features.")]
            for path in taken:
                if len(path) == 1:
                    row.pop(path[0], None)
            for name in ("id", "ts", "model", "version", "prediction", "score", "segment"):
                if name not in fields:
                    row.pop(name, None)
        box = fields.get("features", ("features",))
        for name in RESERVED_FEATURES:
            # What a field is read from has its name there.
            if row.pop(name, None) is not None and (*box, name) not in fields.values():
                self.reserved.add(name)
        for name in fields:
            if name.startswith("features."):
                row[name.removeprefix("features.")] = self._at(event, name)
        for name in ("prediction", "score"):
            if getattr(self.model, name) != "off":
                row[name] = self._at(event, name)
        return row

    def _segment(self, event: Mapping[str, Any], name: str) -> Any:
        if name == "version":
            return self._at(event, "version")
        fields = self.model.input.fields or {}
        if f"segment.{name}" in fields:
            value = self._at(event, f"segment.{name}")
        else:
            segment = self._at(event, "segment")
            if segment is not None and not isinstance(segment, dict):
                raise EventError("bad_segment", "the segment is not an object")
            value = segment.get(name) if segment else None
        if isinstance(value, list | dict):
            raise EventError("bad_segment", f"segment {name!r} is a list or an object")
        return value


@dataclass(frozen=True)
class Fitted:
    """A reference and what was left out of it: (unit key, column, reason)."""

    reference: Reference
    left_out: Sequence[tuple[str, LeftOut]]


def fit_rows(
    rows: Rows,
    source: Mapping[str, Any],
    *,
    budget_events: float | None = None,
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> Fitted:
    """The reference of a model from its rows.

    Args:
        budget_events: events of the model between two false alarms, where it has a budget; every
            feature gets an equal part of it, and the online tests of vectors are fitted for theirs.
        progress: called with a text feature's name and the share of its texts embedded.

    Raises:
        ProfileError: there are no rows, or they cannot serve; says which feature and why.
    """
    model = rows.model
    if rows.n == 0:
        hint = ""
        if rows.reasons:
            hint = f"; {rows.refused} messages were refused, the first: {rows.reasons[0]}"
        if rows.others:
            hint += f"; {rows.others} events are of other models than {model.name!r}"
        raise ProfileError(f"no reference rows for model {model.name!r}{hint}")
    kinds, left_out = _kinds(rows)
    # Whether events can be read so, before they are to be.
    Decoder(model.input, Wanted(kinds, tuple(model.segment_by)))
    slots = None if model.slots == "exact" else model.slots
    by_segment = rows.by_segment(range(rows.n))
    everything = list(range(rows.n))
    vectors = reference_vectors(model, rows.columns, [everything, *by_segment.values()], progress)
    share = None
    if budget_events is not None:
        share = budget_events * (1 + len(by_segment)) * (len(kinds) + len(model.vectors)) / rows.n
    whole, unusable = fit(
        rows.columns,
        kinds,
        slots=slots,
        max_categories=model.max_categories,
        required=model.features != "auto",
        vectors=vectors.profiles(everything, share),
        multivariate=True,
    )
    together = bool(model.detectors_for("multivariate"))
    whole_key = unit_key(model.name, {})
    notes = [(whole_key, entry) for entry in left_out]
    notes += [(whole_key, entry) for entry in unusable]
    why = why_not(whole.n_numeric, rows.n) if together else None
    # Of one feature or none there is nothing to tell, unless somebody asked.
    if why and (whole.n_numeric > 1 or "detectors" in model.model_fields_set):
        notes.append((whole_key, LeftOut(MULTIVARIATE, why)))
    units: dict[str, tuple[Mapping[str, str], Profile]] = {whole_key: ({}, whole)}
    kept: dict[str, Kind] = {f.name: column_kind(f) for f in whole.counted}
    everywhere = together and whole.multivariate is not None
    for values, at in sorted(by_segment.items()):
        segment = dict(zip(model.segment_by, values, strict=True))
        key = unit_key(model.name, segment)
        columns = {name: [rows.columns[name][i] for i in at] for name in kept}
        try:
            profile, missing = fit(
                columns,
                kept,
                slots=slots,
                required=False,
                max_categories=model.max_categories,
                vectors=vectors.profiles(at, share),
                multivariate=True,
            )
        except ProfileError as error:
            notes.append((key, LeftOut("(the whole segment)", str(error).splitlines()[0])))
            continue
        notes += [(key, entry) for entry in missing]
        if everywhere and (why := why_not(profile.n_numeric, profile.n_rows)):
            notes.append((key, LeftOut(MULTIVARIATE, why)))
        units[key] = (segment, profile)
    return Fitted(Reference(model.name, units, dict(source), model.segment_by), notes)


def constants(reference: Reference) -> list[dict[str, Any]]:
    """What has one value in the reference and is watched for any other, as `driftline fit` says it:
    unit, column, value, and the number of rows that have it and of those that have none.

    A segment's is left out where the whole model has the same.
    """
    everywhere = {f.name: f.only for f in reference.whole.categorical}
    return [
        {
            "unit": key,
            "column": f.name,
            "value": f.only,
            "rows": int(f.counts.sum()),
            "missing": f.missing,
        }
        for key, (segment, profile) in reference.units.items()
        for f in profile.categorical
        if f.only is not None and not (segment and everywhere.get(f.name) == f.only)
    ]


def _kinds(rows: Rows) -> tuple[dict[str, Kind], list[LeftOut]]:
    model = rows.model
    kinds: dict[str, Kind] = {}
    left_out: list[LeftOut] = []
    if model.features == "auto":
        own = ("prediction", "score", *model.vectors)
        names = [n for n in rows.columns if n not in own]
        for name in names:
            kind, reason = infer_kind(rows.columns[name])
            if UNREADABLE.search(name):
                kind, reason = None, f"{UNREADABLE_KEY}; rename it in the events"
            if kind is None:
                left_out.append(LeftOut(name, reason))
            else:
                kinds[name] = kind
        for name in sorted(rows.reserved):
            _, rule, remedy = reserved_feature(name)
            left_out.append(LeftOut(name, f"{rule}; {remedy}"))
    else:
        kinds |= model.kinds
    for name in ("prediction", "score"):
        wanted = getattr(model, name)
        column = rows.columns.get(name, [])
        if wanted == "off" or all(v is None for v in column):
            if wanted not in ("off", "auto"):
                raise ProfileError(
                    f"`{name}: {wanted}` is configured, but no reference row of model "
                    f"{model.name!r} has a {name}; check `input.fields`, or write `{name}: off`"
                )
            continue
        kind, reason = (wanted, "") if wanted != "auto" else infer_kind(column)
        if kind == "numeric" and name == "prediction" and wanted == "auto" and _classes(column):
            kind = "categorical"
        if kind is None:
            left_out.append(LeftOut(name, reason))
            continue
        if wanted == "auto":
            # Inferred, so one that cannot serve is left out rather than refused.
            try:
                fit({name: column}, {name: kind}, max_categories=model.max_categories)
            except ProfileError as error:
                reason = str(error).splitlines()[1].partition(": ")[2]
                left_out.append(LeftOut(name, reason))
                continue
        kinds[name] = kind
    if not kinds and not model.vectors:
        said = "; ".join(f"{entry.name!r}: {entry.reason}" for entry in left_out)
        raise ProfileError(
            f"the {rows.n} reference rows of model {model.name!r} have no feature that can be "
            f"monitored ({said or 'the events carry none'}); check `input.fields`"
        )
    return kinds, left_out


def _classes(column: Sequence[Any]) -> bool:
    present = [v for v in column if v is not None]
    distinct = set(present)
    return len(distinct) <= _MOST_CLASSES and all(float(v).is_integer() for v in distinct)


def collect(
    model: ModelConfig,
    values: Iterable[bytes | None],
    limit: int | None = None,
    *,
    timed: bool | None = None,
) -> Rows:
    """Rows from messages, at most `limit` of the model's events.

    timed: whether to keep event times; None where the model has a budget of false alarms.
    """
    rows = Rows(model, timed=model.false_alarms is not None if timed is None else timed)
    if limit is not None and limit < 1:
        raise DriftlineError(f"--events is {limit}; a reference needs at least 1 event")
    for value in values:
        rows.add(value)
        if limit is not None and rows.n >= limit:
            break
    return rows
