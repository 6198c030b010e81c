"""Which part of a JSON event is which of driftline's fields, and what kind each feature is.

Everything here is a guess from names and values, made in a fixed order: driftline's own names come
first, then other people's (`OTHER_NAMES`), and a candidate counts only where its values fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..config.sections import OTHER_NAMES, RESERVED_FEATURES, conflicts
from ..config.values import format_path
from .kinds import ID_VALUE, feature_kind, plain, time_unit

Keys: TypeAlias = tuple[str, ...]

MAX_DEPTH = 8
# An object keyed by ids would grow paths without end.
MAX_PATHS = 2_000


@dataclass(slots=True)
class Leaf:
    """The values found at one path, in the order of the events; null counts as present."""

    path: Keys
    values: list[Any] = field(default_factory=list)
    events: list[int] = field(default_factory=list)

    @property
    def present(self) -> list[Any]:
        return [value for value in self.values if value is not None]


@dataclass(frozen=True, slots=True)
class FeatureFinding:
    """A feature: its kind, or None and the reason it is left out.

    missing: share of the events without a value. distinct: different values in the sample.
    """

    name: str
    path: Keys
    kind: str | None
    missing: float
    distinct: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where driftline's fields are.

    paths: our name → keys. features: every feature found. names: path → name of each of them.
    time_unit: of the event time: `iso`,
    `ms`, or another unit, which driftline does not read, or "" where there is no time.
    notes: what a person should know about the guess.
    """

    paths: Mapping[str, Keys]
    features: tuple[FeatureFinding, ...]
    names: Mapping[Keys, str]
    time_unit: str
    notes: tuple[str, ...]

    @property
    def preferred(self) -> bool:
        """Whether every field is where the preferred event has it."""
        return not self.moved()

    def moved(self) -> dict[str, Keys]:
        """`input.fields`: every name that is not where the preferred event has it → its keys."""
        moved = {name: keys for name, keys in self.paths.items() if keys != (name,)}
        box = self.paths.get("features", ("features",))
        for feature in self.features:
            if feature.kind and feature.path != (*box, feature.name):
                moved[f"features.{feature.name}"] = feature.path
        return moved


def leaves(objects: Sequence[Mapping[str, Any]]) -> tuple[dict[Keys, Leaf], dict[Keys, int]]:
    """Path → its values, for everything that is not an object; and path → count, for objects."""
    found: dict[Keys, Leaf] = {}
    nodes: Counter[Keys] = Counter()

    def walk(value: Any, path: Keys, event: int) -> None:
        if isinstance(value, Mapping) and len(path) < MAX_DEPTH:
            nodes[path] += 1
            for key, inner in value.items():
                walk(inner, (*path, key), event)
        elif path in found or len(found) < MAX_PATHS:
            leaf = found.setdefault(path, Leaf(path))
            leaf.values.append(value)
            leaf.events.append(event)

    for event, content in enumerate(objects):
        walk(content, (), event)
    # An object that is null in some events is that object, not a value.
    return {path: leaf for path, leaf in found.items() if path not in nodes or leaf.present}, nodes


def map_fields(objects: Sequence[Mapping[str, Any]]) -> Mapped:
    """The mapping of a sample of events."""
    found, nodes = leaves(objects)
    n = len(objects)
    notes: list[str] = []
    paths: dict[str, Keys] = {}
    box = _object_named("features", nodes, n)
    segment = _object_named("segment", nodes, n)
    outside = {
        path: leaf
        for path, leaf in found.items()
        if not (box and path[: len(box)] == box)
        and not (segment and path[: len(segment)] == segment)
    }
    if box:
        paths["features"] = box
    if segment:
        paths["segment"] = segment
    for name, fits in _FITS.items():
        for leaf in _candidates(name, outside):
            if leaf.path not in paths.values() and fits(leaf, n):
                paths[name] = leaf.path
                break
    _fall_back(paths, outside, n, notes)
    unit = time_unit(outside[paths["ts"]].present) if "ts" in paths else ""
    if "id" in paths and not any(isinstance(v, str) for v in outside[paths["id"]].present):
        notes.append(
            f"{format_path(paths['id'])} holds numbers, and driftline reads texts as ids: let the"
            " producer write a text, or map another field"
        )
    if "id" not in paths:
        notes.append("no field identifies an event: map one that differs in every event, `id: $.…`")
    if not unit:
        notes.append("no field holds the event time: map one, `ts: $.…` (ISO-8601 or epoch ms)")
    elif unit not in ("iso", "ms"):
        notes.append(
            f"the event time {format_path(paths['ts'])} is in {unit} since 1970; driftline reads"
            " ISO-8601 and milliseconds, so let the producer write one of them"
        )
    names, rest = _feature_paths(found, paths)
    features = features_of(objects, names)
    if not box and any(feature.kind and feature.path == (feature.name,) for feature in features):
        paths["features"] = ()
    for name, other in _clashes(paths, features):
        paths.pop(name, None)
        names = {path: own for path, own in names.items() if f"features.{own}" != name}
        notes.append(
            f"{name} is left out: it stands where driftline reads the event's {other}; map {other}"
            f" elsewhere to use it"
        )
    features = tuple(feature for feature in features if feature.path in names)
    if box and rest:
        others = ", ".join(format_path(p) for p in sorted(rest)[:8])
        more = f" and {len(rest) - 8} more" if len(rest) > 8 else ""
        notes.append(f"not used: {others}{more}")
    order = ["id", "ts", "model", "version", "features", "prediction", "score", "latency_ms"]
    ordered = {k: paths[k] for k in [*order, "error", "segment"] if k in paths}
    return Mapped(ordered, features, names, unit, tuple(notes))


def _clashes(
    paths: Mapping[str, Keys], features: Sequence[FeatureFinding]
) -> Iterator[tuple[str, str]]:
    """(name, other): fields in the way of each other; `name` is the one that gives way."""
    found = {f"features.{f.name}": f.path for f in features if f.kind}
    for name, other in conflicts({**paths, **found}):
        # A feature gives way to a field, and a field found somewhere to one at its usual place.
        yield (other, name) if other in found and name not in found else (name, other)


# Attributes of a CloudEvents envelope: about the message, not about the prediction.
_CLOUDEVENTS = tuple(
    (name,)
    for name in ("specversion", "type", "source", "subject", "datacontenttype", "dataschema")
)


def features_of(
    objects: Sequence[Mapping[str, Any]], names: Mapping[Keys, str]
) -> tuple[FeatureFinding, ...]:
    """What the features at these paths are in these events; one that none of them has is left out.

    It is asked for each model on its own where several share a topic.
    """
    found, _ = leaves(objects)
    return tuple(
        _feature(name, found[path], len(objects)) for path, name in names.items() if path in found
    )


# Where things are


def _rank(name: str, path: Keys) -> int | None:
    """How well the last key says `name`: 0 is driftline's own word; None is not at all."""
    if not path:
        return None
    words = (name, *OTHER_NAMES[name])
    last = plain(path[-1])
    if last in words:
        return words.index(last)
    if name == "model" and path[-2:] in (("model", "name"), ("model", "id")):
        return len(words)
    if name in ("prediction", "score") and len(path) > 1:
        # {"prediction": {"label": "fraud", "probability": 0.9}}
        parents = ("prediction", *OTHER_NAMES["prediction"], "response", "result")
        inner = ("label", "value", "name") if name == "prediction" else ("value",)
        if plain(path[-2]) in parents and last in inner:
            return len(words)
    return None


def _candidates(name: str, among: Mapping[Keys, Leaf]) -> Iterator[Leaf]:
    ranked = [(rank, len(p), p) for p in among if (rank := _rank(name, p)) is not None]
    for _, _, path in sorted(ranked):
        yield among[path]


def _object_named(name: str, nodes: Mapping[Keys, int], n: int) -> Keys | None:
    ranked = [
        (rank, len(path), path)
        for path, count in nodes.items()
        if count >= 0.5 * n and (rank := _rank(name, path)) is not None
    ]
    return min(ranked)[2] if ranked else None


def _fall_back(
    paths: dict[str, Keys], among: Mapping[Keys, Leaf], n: int, notes: list[str]
) -> None:
    """An id and a time that no name gives away may be recognised by their values."""
    if "id" not in paths:
        for path, leaf in among.items():
            texts = [v for v in leaf.present if isinstance(v, str) and ID_VALUE.fullmatch(v)]
            if path not in paths.values() and len(texts) >= 0.9 * n and _fits_id(leaf, n):
                paths["id"] = path
                notes.append(f"id is {format_path(path)}, by its values alone: please check")
                break
    if "ts" not in paths:
        for path, leaf in among.items():
            full = [v for v in leaf.present if not isinstance(v, str) or len(v) > 10]
            if path not in paths.values() and len(full) >= 0.9 * n and time_unit(full):
                paths["ts"] = path
                notes.append(f"ts is {format_path(path)}, by its values alone: please check")
                break


# Whether values fit a field


def _scalars(leaf: Leaf) -> list[Any]:
    return [v for v in leaf.present if isinstance(v, str | int | float)]


def _fits_id(leaf: Leaf, n: int) -> bool:
    values = [v for v in leaf.present if isinstance(v, str) or type(v) is int]
    return len(values) >= 0.9 * n and len(set(values)) >= 0.9 * len(values)


def _fits_time(leaf: Leaf, n: int) -> bool:
    return len(leaf.present) >= 0.5 * n and bool(time_unit(leaf.present))


def _fits_name(leaf: Leaf, n: int) -> bool:
    values = [v for v in leaf.present if isinstance(v, str)]
    few = len(set(values)) <= max(20, 0.1 * n)
    return len(values) >= 0.5 * n and len(values) == len(leaf.present) and few


def _fits_version(leaf: Leaf, n: int) -> bool:
    return bool(leaf.present) and _fits_name(Leaf(leaf.path, [str(v) for v in leaf.present]), n)


def _fits_prediction(leaf: Leaf, n: int) -> bool:
    return bool(leaf.present) and len(_scalars(leaf)) == len(leaf.present)


def _fits_number(leaf: Leaf, n: int) -> bool:
    numbers = [v for v in _scalars(leaf) if not isinstance(v, bool | str)]
    return bool(numbers) and len(numbers) == len(leaf.present)


def _fits_latency(leaf: Leaf, n: int) -> bool:
    if not _fits_number(leaf, n):
        return False
    # `latency: 0.012` is in seconds, which driftline would take for milliseconds.
    ordered = sorted(leaf.present)
    return plain(leaf.path[-1]).endswith("_ms") or ordered[len(ordered) // 2] >= 1


def _fits_error(leaf: Leaf, n: int) -> bool:
    return all(isinstance(v, bool | str) for v in leaf.present)


_FITS: dict[str, Callable[[Leaf, int], bool]] = {
    "id": _fits_id,
    "ts": _fits_time,
    "model": _fits_name,
    "version": _fits_version,
    "score": _fits_number,
    "prediction": _fits_prediction,
    "latency_ms": _fits_latency,
    "error": _fits_error,
}


# Features


def _feature_paths(
    found: Mapping[Keys, Leaf], paths: Mapping[str, Keys]
) -> tuple[dict[Keys, str], list[Keys]]:
    """(path → name of every feature, paths that are neither a feature nor a field)."""
    # Without an object for the features, everything that is no field may be one.
    box, segment = paths.get("features", ()), paths.get("segment")
    taken = set(paths.values())
    envelope = _CLOUDEVENTS if ("specversion",) in found else ()
    free = [
        p
        for p in found
        if p not in taken and p not in envelope and not (segment and p[: len(segment)] == segment)
    ]
    names: dict[Keys, str] = {}
    for path in free:
        if path[: len(box)] != box:
            continue
        name = ".".join(path[len(box) :])
        if name in RESERVED_FEATURES:
            name = f"{name}_in"
        # {"a.b": 1, "a": {"b": 2}}: two paths, one name.
        serial = sum(n == name or n.startswith(f"{name}#") for n in names.values())
        names[path] = f"{name}#{serial + 1}" if serial else name
    return names, [p for p in free if p not in names]


def _feature(name: str, leaf: Leaf, n: int) -> FeatureFinding:
    present = leaf.present
    texts = [repr(value) if isinstance(value, list | dict) else value for value in present]
    distinct = len({(type(value), value) for value in texts})
    kind, reason = feature_kind(name, present)
    if not name:
        kind, reason = None, "it has no name"
    missing = 1 - len(present) / n if n else 0.0
    return FeatureFinding(name, leaf.path, kind, missing, distinct, reason)
