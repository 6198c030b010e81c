"""YAML read with the line of every key and value, and without YAML's surprises.

PyYAML resolves plain scalars by YAML 1.1, where `no` is false, `1:30` is 90, `010` is 8, `1e-3` is
a text and `2026-11-21` a date object. Here they follow YAML 1.2's core schema: booleans are `true`
and `false`, numbers are decimal (or 0x, 0o), everything else is the text that stands there. A key
is always its text, so a feature may be called `no` or `1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import yaml

from ...schemas.errors import ABSENT, ConfigError, Problem

Path: TypeAlias = tuple[str | int, ...]

# An alias may repeat a big block, and aliases of aliases may repeat it exponentially.
MAX_NODES = 100_000

TAG_RULE = "a value that begins with `!` is a YAML tag, which driftline does not use"

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_PREFIX = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Tree:
    """A YAML document as plain Python values, and the 1-based line on which each of them begins."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest part of the file that holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def show_path(path: Path) -> str:
    """`("models", "fraud", "windows", 2)` as `models.fraud.windows[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Loader(yaml.SafeLoader):
    """Composes nodes only; `yaml_implicit_resolvers` below replaces YAML 1.1's by 1.2's."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(f"{_PREFIX}null", re.compile(f"(?:{_NULL.pattern})$"), None)
_Loader.add_implicit_resolver(f"{_PREFIX}bool", re.compile(f"(?:{_BOOL.pattern})$"), None)
_Loader.add_implicit_resolver(f"{_PREFIX}int", re.compile(f"(?:{_INT.pattern})$"), None)
_Loader.add_implicit_resolver(f"{_PREFIX}float", re.compile(f"(?:{_FLOAT.pattern})$"), None)
_Loader.add_implicit_resolver(f"{_PREFIX}merge", re.compile(r"<<$"), None)


def read_yaml(path: FilePath) -> tuple[Tree, list[Problem]]:
    """The file as a tree, and the mistakes that do not hinder reading on (keys written twice).

    Raises ConfigError where the file is missing or is no YAML mapping.
    """
    name = str(path)

    def stop(line: int | None, rule: str, remedy: str, value: object = ABSENT) -> ConfigError:
        return ConfigError([Problem("", line, value, rule, remedy, name)])

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        remedy = "name it with --config, or let `driftline init --topic …` propose one"
        raise stop(None, "the file does not exist", remedy) from None
    except OSError as error:
        raise stop(None, f"the file cannot be read: {error.strerror}", "name a file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise stop(line, "the file is not UTF-8", "save it as UTF-8") from None

    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise stop(*_explain(error, text)) from None
    except RecursionError:
        raise stop(None, "the file is nested too deeply", "remove brackets") from None
    example = "write `kafka: {bootstrap.servers: localhost:9092}` and the keys of a model"
    if root is None or (root.tag == f"{_PREFIX}null" and isinstance(root, yaml.ScalarNode)):
        raise stop(None, "the file is empty", example)
    if not isinstance(root, yaml.MappingNode):
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        rule = f"the file holds {what}, not a mapping of keys to values"
        raise stop(root.start_mark.line + 1, rule, example)
    reader = _Reader(name)
    try:
        value = reader.convert(root, ())
    except RecursionError:
        raise stop(None, "the file is nested too deeply", "remove brackets") from None
    return Tree(value, reader.lines), reader.problems


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._nodes = 0

    def convert(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            rule = f"the file has more than {MAX_NODES:,} values, aliases counted in full"
            raise ConfigError([self._problem(node, path, rule, "remove aliases")])
        if id(node) in self._open:
            self.problems.append(
                self._problem(node, path, "an alias holds itself", "write the value out")
            )
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return dict(self._pairs(node, path))
            if isinstance(node, yaml.SequenceNode):
                return [self.convert(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        first_line: dict[str, int] = {}
        own: list[tuple[str, yaml.Node, int]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == f"{_PREFIX}merge":
                yield from self._merged(value, path)
            elif not isinstance(key, yaml.ScalarNode):
                self.problems.append(self._problem(key, path, "a key is a text", "write a name"))
            elif key.value in first_line:
                rule = f"the key is already on line {first_line[key.value]}"
                # The value stays unsaid: it may be the second of two passwords.
                problem = self._problem(key, (*path, key.value), rule, "remove one of the two")
                self.problems.append(problem)
            else:
                first_line[key.value] = line
                own.append((key.value, value, line))
        for name, value, line in own:
            if (*path, name) in self.lines:
                self._forget((*path, name))
            self.lines[(*path, name)] = line
            yield name, self.convert(value, (*path, name))

    def _merged(self, value: yaml.Node, path: Path) -> Iterator[tuple[str, Any]]:
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        # Of several merged mappings the first one that has a key wins.
        for source in reversed(sources):
            merged = self.convert(source, path)
            if isinstance(merged, dict):
                yield from merged.items()
            else:
                rule = "`<<` takes a mapping, or a list of mappings"
                self.problems.append(self._problem(source, path, rule, "name an anchor: *name"))

    def _forget(self, path: Path) -> None:
        for known in [p for p in self.lines if p[: len(path)] == path]:
            del self.lines[known]

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        tag = node.tag.removeprefix(_PREFIX)
        try:
            if tag == "str" or tag == "merge":
                return text
            if tag == "null" and _NULL.fullmatch(text):
                return None
            if tag == "bool" and _BOOL.fullmatch(text):
                return text.lower() == "true"
            if tag == "int" and _INT.fullmatch(text):
                base = {"0o": 8, "0x": 16}.get(text[:2], 10)
                return int(text, base) if base == 10 else int(text[2:], base)
            if tag == "float" and _FLOAT.fullmatch(text):
                lowered = text.lower()
                return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            rule, remedy = "the number is too long", "write at most 4,000 digits"
        else:
            # Neither tag nor text is repeated: an unquoted password may begin with `!`.
            rule, remedy = TAG_RULE, "put the value in quotes"
        self.problems.append(self._problem(node, path, rule, remedy))
        return None

    def _problem(self, node: yaml.Node, path: Path, rule: str, remedy: str) -> Problem:
        line = node.start_mark.line + 1
        return Problem(show_path(path), line, ABSENT, rule, remedy, self.file)


def _explain(error: yaml.YAMLError, text: str) -> tuple[int | None, str, str]:
    """(line, rule, remedy) of a syntax error.

    Never with the text around it: the line may hold a password, and PyYAML's own snippet prints it.
    """
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return line, "the file holds a control character", "remove it, or save the file as UTF-8"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return None, "the file is not YAML", "check brackets and indentation"
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    column = f" (column {mark.column + 1})" if mark else ""
    problem = error.problem
    if "'\\t'" in problem:
        return line, "YAML does not indent with tabs", "use spaces"
    if "mapping values are not allowed" in problem:
        rule = f"a second `: ` stands on one line, or the indentation is off{column}"
        return line, rule, "start a new line for each key, and quote a value that contains `: `"
    if "another document" in problem or "document start" in problem:
        return line, "the file holds more than one YAML document", "remove the line `---`"
    if "alias" in problem:
        rule = "a value that begins with `*` names an anchor, and there is none of this name"
        return line, rule, "put the value in quotes, or define the anchor with `&` above it"
    if "tag" in problem:
        return line, TAG_RULE, "put the value in quotes"
    if "escape" in problem:
        rule = f"in double quotes a backslash begins an escape sequence{column}"
        return line, rule, "write two backslashes, or use single quotes"
    if "cannot start any token" in problem:
        rule = f"a value cannot begin with this character{column}"
        return line, rule, "put the value in quotes"
    if "end of stream" in problem and error.context_mark is not None:
        rule = "a quote or bracket opens here and is never closed"
        return error.context_mark.line + 1, rule, "close it"
    # What PyYAML quotes may stand in the file; its own tokens are '<…>' or punctuation.
    clean = re.sub(r"'([^']*)'", lambda m: "a text" if re.match(r"\w", m[1]) else m[0], problem)
    return line, f"not YAML: {clean}{column}", "check quotes, brackets and indentation"
