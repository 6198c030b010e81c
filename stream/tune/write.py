"""The chosen configuration: the user's file with some values replaced, comments and all else kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from ...schemas.errors import ConfigError, DriftlineError
from ..config.document import ModelConfig, load
from .candidates import Candidate
from .terminal import settings

# In the order in which new keys are added.
KEYS: Final = ("pane", "windows", "detectors", "alpha", "false_alarms")


def tuned_yaml(path: Path, model: str, candidate: Candidate, out: Path) -> str:
    """The text of `path` with a candidate's settings for a model.

    Values are replaced where they stand and keys that are not there are added below the model's
    others; comments within a replaced value go with it. `reference` is made to lead to the same
    place from where `out` lies.

    Raises:
        DriftlineError: the file is written in braces throughout, so nothing can be replaced in it.
    """
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    section = _section(root, model)
    if section.flow_style or root.flow_style:
        raise DriftlineError(
            f"{path}: the keys of model {model!r} stand in braces, and driftline replaces whole "
            "lines; write one key per line"
        )
    wanted: dict[str, Any] = dict.fromkeys(KEYS)
    wanted |= settings(candidate)
    if (moved := _reference(root, section, path, out)) is not None:
        wanted["reference"] = moved
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    indent = section.value[0][0].start_mark.column
    edits: list[tuple[int, int, str]] = []
    there = {key.value: (key, value) for key, value in section.value}
    added = ""
    for name, value in wanted.items():
        line = "" if value is None else f"{' ' * indent}{name}: {_flow(value)}\n"
        if name in there:
            first, after = _extent(*there[name])
            edits.append((first, after, _with_comment(line, lines, there[name], after)))
        else:
            added += line
    last = max(_extent(key, value)[1] for key, value in section.value)
    edits.append((last, last, added))
    for first, after, new in sorted(edits, reverse=True):
        lines[first:after] = [new]
    return "".join(lines)


def _section(root: yaml.MappingNode, model: str) -> yaml.MappingNode:
    """The mapping that the model's own keys stand in."""
    for key, value in root.value:
        if key.value == "models" and isinstance(value, yaml.MappingNode):
            for name, own in value.value:
                if name.value == model and isinstance(own, yaml.MappingNode):
                    return own
    return root


def _reference(
    root: yaml.MappingNode, section: yaml.MappingNode, path: Path, out: Path
) -> str | None:
    """`reference` as it must be written in `out`, None where it stays as it is."""
    here, there = path.absolute().parent, out.absolute().parent
    found = [v.value for node in (root, section) for k, v in node.value if k.value == "reference"]
    if here == there or not found or "://" in found[-1] or os.path.isabs(found[-1]):
        return None
    if found[-1].startswith("~"):
        return None
    return Path(os.path.relpath(here / found[-1], there)).as_posix()


def _extent(key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """[first, after) lines of a key with its value."""
    end = value.end_mark
    if isinstance(value, yaml.CollectionNode) and not value.flow_style:
        # A block ends where the next thing begins: its own last line is that of its last value.
        last = value.value[-1]
        last = last[1] if isinstance(last, tuple) else last
        return key.start_mark.line, max(_extent(key, last)[1], value.start_mark.line + 1)
    return key.start_mark.line, end.line + (0 if end.column == 0 and end.line else 1)


def _with_comment(
    line: str, lines: list[str], pair: tuple[yaml.Node, yaml.Node], after: int
) -> str:
    """The new line with the comment that stood behind the old value."""
    end = pair[1].end_mark
    if not line or end.line != after - 1:
        return line
    rest = lines[end.line][end.column :].strip()
    return f"{line.rstrip()}  {rest}\n" if rest.startswith("#") else line


def _flow(value: object) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, float):
        # YAML 1.1 readers take 1e-05 for a text.
        return format(value, "f").rstrip("0") if 1e-9 < value < 1 else repr(value)
    text = str(value)
    plain = text.replace(" ", "").replace("_", "").replace(".", "").replace("/", "")
    return text if plain.replace("-", "").isalnum() else orjson.dumps(text).decode()


def write(path: Path, model: ModelConfig, candidate: Candidate, out: Path) -> None:
    """Write the chosen configuration, and read it back: it must mean what was chosen.

    Raises:
        DriftlineError: it cannot be written, or says something else.
    """
    text = tuned_yaml(path, model.name, candidate, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DriftlineError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        again = load(out).models[model.name]
    except ConfigError as error:
        raise DriftlineError(
            f"{out} was written, but does not load: {error}; keys that all models have in common "
            "may contradict the new ones"
        ) from error
    meant = candidate.config(model)
    same = all(
        getattr(again, name) == getattr(meant, name)
        for name in ("pane_ms", "windows", "detectors", "false_alarms", "reference")
    ) and (candidate.level.alpha is None or again.alpha == candidate.level.alpha)
    if not same:
        raise DriftlineError(
            f"{out} was written, but does not say {candidate.label}; compare it with {path}"
        )
