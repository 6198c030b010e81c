"""The published JSON contracts and their JSON Schemas (draft 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from . import alert, inference, label, verdict

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Order in which keywords are written: what it is, then its rules, then examples.
_KEYWORDS: Final = (
    *("$schema", "$id", "$ref", "title", "description", "type", "const", "enum", "format"),
    *("pattern", "minLength", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"),
    *("required", "properties", "additionalProperties", "items", "anyOf", "oneOf", "allOf"),
    *("not", "if", "then", "else", "$defs", "examples"),
)
_RANK: Final = {keyword: rank for rank, keyword in enumerate(_KEYWORDS)}
_BY_NAME: Final = ("properties", "$defs")
_LISTS: Final = ("anyOf", "oneOf", "allOf")
_SINGLE: Final = ("items", "additionalProperties", "not", "if", "then", "else")


@dataclass(frozen=True, slots=True)
class Contract:
    """One published contract.

    name: as `driftline schema` takes it. title: for people. model: what reads or writes it.
    examples: valid messages. version: grows when a message that was valid no longer is, or the
    other way round.
    """

    name: str
    title: str
    model: type[BaseModel]
    examples: tuple[dict[str, Any], ...]
    version: int = 1

    @property
    def urn(self) -> str:
        """The schema's `$id`."""
        return f"urn:driftline:schema:{self.name}:v{self.version}"


CONTRACTS: Final[Mapping[str, Contract]] = {
    contract.name: contract
    for contract in (
        Contract("inference", "Inference event", inference.InferenceEvent, inference.EXAMPLES),
        Contract("label", "Label event", label.LabelEvent, label.EXAMPLES),
        Contract("verdict", "Verdict", verdict.Verdict, verdict.EXAMPLES),
        Contract("alert", "Alert", alert.Alert, alert.EXAMPLES),
    )
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the contract `name`, descriptions and examples included.

    Written so that it does not depend on pydantic's release: what pydantic adds without a meaning
    (titles, defaults, `additionalProperties: true`, 1.0 for 1) is left out, keywords have a fixed
    order.
    """
    contract = CONTRACTS[name]
    schema = _tidy(contract.model.model_json_schema(mode="validation"))
    found = {"$schema": DIALECT, "$id": contract.urn, "title": contract.title, **schema}
    return _ordered(found | {"examples": list(contract.examples)})


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _BY_NAME:
            found[keyword] = {name: _tidy(inner) for name, inner in value.items()}
        elif keyword in _LISTS:
            found[keyword] = [_tidy(inner) for inner in value]
        elif keyword in _SINGLE and isinstance(value, dict):
            found[keyword] = _tidy(value)
        elif keyword == "description":
            # docstrings are wrapped for the source; only their paragraphs mean something
            found[keyword] = "\n\n".join(" ".join(part.split()) for part in value.split("\n\n"))
        elif keyword == "additionalProperties" and value is True:
            continue
        elif keyword not in ("title", "default"):
            whole = isinstance(value, float) and value.is_integer()
            found[keyword] = int(value) if whole else value
    return _ordered(_simple_union(found))


def _simple_union(schema: dict[str, Any]) -> dict[str, Any]:
    """`anyOf` with "integer" left out beside "number", as `{"type": […]}` where types are all."""
    branches = schema.get("anyOf", [])
    if {"type": "number"} in branches:
        branches = [branch for branch in branches if branch != {"type": "integer"}]
    if not branches or any(set(branch) != {"type"} for branch in branches):
        return schema | {"anyOf": branches} if branches else schema
    types = [branch["type"] for branch in branches]
    rest = {keyword: value for keyword, value in schema.items() if keyword != "anyOf"}
    return rest | {"type": types}


def _ordered(schema: dict[str, Any]) -> dict[str, Any]:
    last = len(_RANK)
    return {k: schema[k] for k in sorted(schema, key=lambda k: (_RANK.get(k, last), k))}
