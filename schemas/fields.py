"""Field types and model settings that the JSON contracts share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
)

from .deadletter import Reason
from .errors import EventError, show_value
from .units import parse_time_ms

RECEIVED = ConfigDict(frozen=True, extra="ignore", strict=True, use_attribute_docstrings=True)
"""What others write: fields driftline does not know are ignored, known ones must have their type."""

EMITTED = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
"""What driftline writes: nothing but the contract."""


def _check_instant(text: str) -> str:
    parse_time_ms(text)
    return text


def _finite_or_none(value: object) -> object:
    """JSON has no NaN and no infinity, and null is what a reader would see in their place."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    """`value` as its reader will get it: numpy types become JSON ones, non-finite numbers null."""
    if not isinstance(value, Mapping):
        return value
    return orjson.loads(orjson.dumps(dict(value), option=orjson.OPT_SERIALIZE_NUMPY))


def _sorted(value: dict[str, str]) -> dict[str, str]:
    return dict(sorted(value.items()))


def absent_not_null(schema: dict[str, Any]) -> None:
    """JSON Schema of an optional field that is left out of the message instead of being null."""
    present, _null = schema.pop("anyOf")
    schema.update(present)


class Sparse(BaseModel):
    """Leaves out of its message what is None and declared `absent_not_null`."""

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        declared = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if value is not None or declared[name].json_schema_extra is not absent_not_null
        }


Timestamp = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
    ),
    AfterValidator(_check_instant),
    Field(json_schema_extra={"format": "date-time"}),
]
"""An instant as `units.iso_ms` writes it: UTC, milliseconds, `Z`. Sorts as text."""

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""16 bytes in hexadecimal."""

Name = Annotated[str, StringConstraints(min_length=1)]

Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A number; null where it is not defined, not finite or could not be computed."""

Probability = Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_finite_or_none)]
"""A number from 0 to 1, or null."""

Detail = Annotated[dict[str, Any], BeforeValidator(_plain)]

Segment = Annotated[dict[str, str], AfterValidator(_sorted)]
"""Segment column to value, sorted by column, so that equal segments are equal bytes."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_contract(model: type[ModelT], value: bytes, reason: Reason) -> ModelT:
    """The message `value` as `model`, without coercion (a `"1"` is no number).

    Raises EventError(reason) naming the first field that breaks the contract.
    """
    try:
        return model.model_validate(orjson.loads(value), strict=True)
    except orjson.JSONDecodeError as error:
        text = value.decode("utf-8", "replace")
        raise EventError(
            Reason.NOT_JSON, f"{show_value(text)}: not JSON ({error}); send one JSON object"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        rule = first["msg"].removeprefix("Value error, ")
        raise EventError(
            reason,
            f"{show_value(first['input'])} at ${path}: {rule}; "
            f"the contract is printed by `driftline schema {model.__name__.lower()}`",
        ) from None
