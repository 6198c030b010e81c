"""How driftline.yaml speaks of texts, vectors and groups of features."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from ...detectors.reduce import parse_reducer
from ...detectors.vectors import VectorKind, VectorSpec
from ...schemas.errors import ABSENT
from ...schemas.units import EventWindow, parse_window
from .values import Mistake, nearest

DEFAULT_ENCODER: Final = "sentence-transformers/all-MiniLM-L6-v2"
# Embeddings have hundreds of dimensions; the test's cost grows with them, its power hardly.
DEFAULT_REDUCE: Final = {"text": "pca 32", "vector": "none", "group": "none"}
VECTOR_KINDS: Final[tuple[str, ...]] = get_args(VectorKind)
_ENCODER: Final = re.compile(r"[^\s\x00-\x1f]{1,500}")
_MOST_EVENTS: Final = 4_000

Check = Callable[[object], Any]


class _Wrong(ValueError):
    def __init__(self, rule: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule, self.remedy = rule, remedy


def read_vector_feature(
    kind: str, section: Mapping[str, object]
) -> tuple[VectorSpec | None, list[Mistake]]:
    """A feature of kind `text`, `vector` or `group` from its keys; None with the mistakes in it.

    The places of mistakes are below the section.
    """
    known = {**_EVERY, **_OWN[kind]}
    mistakes: list[Mistake] = []
    values: dict[str, Any] = {}
    for key, value in section.items():
        if key == "kind":
            continue
        if key not in known:
            near = nearest(key, known)
            rule = f"a feature of kind {kind} has no such key"
            remedy = f"write {near}" if near else f"its keys are kind, {', '.join(known)}"
            mistakes.append(Mistake((key,), ABSENT, rule, remedy))
            continue
        try:
            values |= known[key](value)
        except _Wrong as error:
            mistakes.append(Mistake((key,), value, error.rule, error.remedy))
    if kind == "group" and "features" not in section:
        rule = "a group names at least two numeric features"
        mistakes.append(Mistake(("features",), ABSENT, rule, "write features: [temp, wind]"))
    if mistakes:
        return None, mistakes
    if kind == "text":
        values.setdefault("encoder", DEFAULT_ENCODER)
    values.setdefault("reduce", DEFAULT_REDUCE[kind])
    return VectorSpec(kind=kind, **values), []  # pyright: ignore[reportArgumentType]


def _encoder(value: object) -> dict[str, Any]:
    if not isinstance(value, str) or not _ENCODER.fullmatch(value):
        raise _Wrong(
            "encoder is a Hugging Face model by name, a directory, or package:<installed package>",
            f"write for example {DEFAULT_ENCODER}",
        )
    return {"encoder": value}


def _revision(value: object) -> dict[str, Any]:
    if not isinstance(value, str) or not re.fullmatch(r"[\w./-]{1,100}", value):
        raise _Wrong(
            "revision is a branch, a tag or a commit", "write a commit, for example 8b3219a"
        )
    return {"revision": value}


def _pooling(value: object) -> dict[str, Any]:
    if value in ("mean", "cls"):
        return {"pooling": value}
    found = re.fullmatch(r"last ([1-9]\d?)", value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong(
            "pooling is mean, cls, or last K (the mean over the tokens of the last K layers)",
            "write mean",
        )
    return {"pooling": "last_k", "last_k": int(found[1])}


def _reduce(value: object) -> dict[str, Any]:
    if value is None or value is False:
        return {"reduce": "none"}
    try:
        parse_reducer(value)
    except ValueError as error:
        raise _Wrong(str(error), "write for example pca 32") from None
    return {"reduce": value}


def _windows(value: object) -> dict[str, Any]:
    example = "write for example [50 events, 200 events]"
    if not isinstance(value, list | tuple) or not value:
        raise _Wrong("windows of a vector are a list of numbers of events", example)
    sizes: list[int] = []
    for item in value:
        try:
            window = parse_window(f"{item} events" if type(item) is int else item)
        except ValueError as error:
            raise _Wrong(str(error), example) from None
        if not isinstance(window, EventWindow) or not 2 <= window.events <= _MOST_EVENTS:
            raise _Wrong(
                "a vector is tested at every event, so its windows are counted in events, "
                f"2 to {_MOST_EVENTS:,}",
                example,
            )
        if window.events in sizes:
            raise _Wrong("each window is listed once", "remove one of them")
        sizes.append(window.events)
    return {"windows": tuple(sorted(sizes))}


def _number(name: str, least: float, most: float, example: object) -> Check:
    def check(value: object) -> dict[str, Any]:
        if isinstance(value, str) and (found := re.fullmatch(r"(\d[\d_]*) events", value)):
            value = int(found[1])
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Wrong(f"{name} is a number", f"write for example {example}")
        if not least <= value <= most:
            raise _Wrong(
                f"{name} lies between {least:,} and {most:,}", f"write for example {example}"
            )
        return {name: type(least)(value)}

    return check


def _flag(value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise _Wrong("include_values is true or false", "write false")
    return {"include_values": value}


def _members(value: object) -> dict[str, Any]:
    names = list(value) if isinstance(value, list | tuple) else []
    if len(names) < 2 or not all(isinstance(n, str) and n for n in names):
        raise _Wrong("a group names at least two numeric features", "write [temp, wind]")
    if len(set(names)) < len(names):
        raise _Wrong("each feature is listed once", "remove one of them")
    return {"members": tuple(names)}


_EVERY: Final[Mapping[str, Check]] = {
    "reduce": _reduce,
    "windows": _windows,
    "ert": _number("ert", 2.0, 1e9, "20000 events"),
    "sample": _number("sample", 1, 5_000, 500),
    "share": _number("share", 1e-6, 1.0, 0.1),
}
_OWN: Final[Mapping[str, Mapping[str, Check]]] = {
    "text": {
        "encoder": _encoder,
        "revision": _revision,
        "pooling": _pooling,
        "max_tokens": _number("max_tokens", 8, 8_192, 256),
        "include_values": _flag,
    },
    "vector": {"dimension": _number("dimension", 1, 16_384, 384)},
    "group": {"features": _members},
}
