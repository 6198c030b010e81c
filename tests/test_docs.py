"""The documents say what is true: examples run, configurations load, keys and defaults are those of
the code, commands exist, links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
import typer
import yaml
from pydantic import BaseModel

from driftline.schemas.alert import Alert
from driftline.schemas.verdict import Verdict
from driftline.stream.cli import app
from driftline.stream.config.document import (
    BUDGET_DETECTORS,
    DEFAULT_DETECTORS,
    MODEL_KEYS,
    Alerts,
    Config,
    Ingest,
    Input,
    Topics,
    load,
)

ROOT = Path(__file__).parent.parent
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
DOCUMENTS = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

MINIMAL: Mapping[str, Any] = {
    "kafka": {"bootstrap.servers": "localhost:9092"},
    "model": "fraud",
    "input": {"topic": "inference"},
    "reference": "./reference",
    "windows": ["5m"],
}
# Heading in docs/configuration.md → where in the file the keys of its table are written.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Top level": (),
    "topics": ("topics",),
    "ingest": ("ingest",),
    "alerts": ("alerts",),
    "Keys of a model": (),
    "input": ("input",),
}

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """The text without fenced blocks, in which brackets are no links."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def slugs(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_example_of_a_detector_runs() -> None:
    path = ROOT / "docs" / "detectors.md"
    result = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert result.attempted > 10
    assert result.failed == 0


YAML_BLOCKS = [
    pytest.param(text, id=f"{path.name}-{i}")
    for path in (ROOT / "README.md", ROOT / "docs" / "configuration.md")
    for i, text in enumerate(blocks(path, "yaml"))
]


@pytest.mark.parametrize("text", YAML_BLOCKS)
def test_configurations_load(text: str, tmp_path: Path) -> None:
    file = tmp_path / "driftline.yaml"
    file.write_text(text, encoding="utf-8")
    assert load(file).models


def test_examples_of_messages_follow_their_contracts() -> None:
    found = [orjson.loads(text) for text in blocks(ROOT / "README.md", "json")]
    verdicts = [v for v in found if "detector" in v]
    alerts = [a for a in found if "starts_at" in a]
    assert len(verdicts) == len(alerts) == 1
    Verdict.from_json(orjson.dumps(verdicts[0]))
    Alert.from_json(orjson.dumps(alerts[0]))
    assert alerts[0]["verdicts"] == [verdicts[0]["id"]]
    assert alerts[0]["starts_at"] == verdicts[0]["window"]["end"]


def table_rows(heading: str) -> dict[str, str]:
    """Key → default, as the cells stand there, from the table below a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", CONFIGURATION, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    rows: dict[str, str] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if line.startswith("| `"):
            rows[cells[1].strip("`")] = cells[3]
    return rows


def names_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("topics", names_of(Topics)),
        ("ingest", names_of(Ingest)),
        ("alerts", names_of(Alerts)),
        ("input", names_of(Input)),
        ("Keys of a model", set(MODEL_KEYS)),
        ("Top level", {"group", "model", "models"}),
    ],
)
def test_every_key_has_a_row_and_no_row_is_of_another(heading: str, keys: set[str]) -> None:
    assert set(table_rows(heading)) == keys


def test_every_section_has_a_heading() -> None:
    sections = names_of(Config) - {"path", "group", "models"}
    assert sections == {"kafka", "topics", "ingest", "alerts"}
    for name in sections:
        assert re.search(rf"^## {name}$", CONFIGURATION, re.MULTILINE)


def defaults() -> Iterator[Any]:
    for heading, at in SECTIONS.items():
        for key, cell in table_rows(heading).items():
            if cell and cell != "required":
                yield pytest.param((*at, key), cell, id=".".join((*at, key)))


@pytest.mark.parametrize(("at", "cell"), [*defaults()])
def test_stated_defaults_are_the_defaults(at: tuple[str, ...], cell: str, tmp_path: Path) -> None:
    assert re.fullmatch(r"`[^`]+`", cell)
    file = tmp_path / "driftline.yaml"
    file.write_text(orjson.dumps(MINIMAL).decode(), encoding="utf-8")
    override: Any = yaml.safe_load(cell.strip("`"))
    for key in reversed(at):
        override = {key: override}
    assert load(file, overrides=override).digest() == load(file).digest()


def test_stated_detectors_are_those_of_alpha_and_of_a_budget() -> None:
    row = re.compile(r"^\| `(numeric|categorical|multivariate)` \| (.*) \| (.*) \|$", re.MULTILINE)
    stated = {
        kind: [re.findall(r"\[(.*?)\]", cell)[0] for cell in cells]
        for kind, *cells in row.findall(CONFIGURATION)
    }
    known = (DEFAULT_DETECTORS, BUDGET_DETECTORS)
    assert stated == {k: [", ".join(of[k]) for of in known] for k in DEFAULT_DETECTORS}


def test_required_keys_are_required(tmp_path: Path) -> None:
    required = {
        (*SECTIONS[heading], key)
        for heading in SECTIONS
        for key, cell in table_rows(heading).items()
        if cell == "required"
    }
    minimal = {(key,) for key in MINIMAL if key not in ("kafka", "model")} | {("input", "topic")}
    assert required == minimal


@documents
def test_links_lead_to_files_and_headings(path: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.is_file() or (anchor and anchor not in slugs(file)):
            broken.append(target)
    assert broken == []


@documents
def test_nothing_depends_on_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    absolute = re.findall(r"(?<![\w.~:/$-])/(?:work|home|root|tmp|Users|mnt|srv)\b[^\s]*", text)
    assert absolute == []
    assert not re.search(r"[A-Z]:\\", text)


def command_lines() -> Iterator[Any]:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        indented = "\n".join(re.findall(r"^    (.+)$", text, re.MULTILINE))
        inline = "\n".join(re.findall(r"`(driftline [a-z][^`\n]*)`", text))
        lines = f"{fenced}\n{indented}\n{inline}".splitlines()
        for line in dict.fromkeys(line.strip() for line in lines):
            if re.match(r"(\.venv/bin/)?driftline [a-z]+( |$)", line) and "…" not in line:
                yield pytest.param(line, id=f"{path.name}: {line.partition('#')[0].strip()}")


@pytest.mark.parametrize("line", [*command_lines()])
def test_command_lines_are_of_commands_and_options_that_exist(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    group = typer.main.get_command(app)
    context: Any = click.Context(group)  # type: ignore[arg-type]
    command = group.get_command(context, name)  # type: ignore[attr-defined]
    assert command is not None
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    assert [w for w in words if w.startswith("-") and w.partition("=")[0] not in known] == []
