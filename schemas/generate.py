"""Writes the published schemas: `driftline schema [NAME] [--check]`.

The files under `generated/` are part of the distribution, for readers in any language. They follow
from the models; `check` says whether somebody changed one without the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
import yaml

from .asyncapi import asyncapi_document
from .contracts import CONTRACTS, json_schema

NAMES: Final = (*CONTRACTS, "asyncapi")
"""What `render` and `driftline schema NAME` know."""

GENERATED: Final = Path(__file__).parent / "generated"
_REMEDY: Final = "run `python -m driftline.schemas.generate --out schemas/generated`"


def render(name: str, prefix: str = "driftline") -> str:
    """The text of one schema: JSON Schema for a contract, YAML for `asyncapi`.

    prefix: what the topics in the AsyncAPI document begin with. Equal on every run and machine.
    Raises ValueError for a name that is not in `NAMES`.
    """
    if name == "asyncapi":
        document = asyncapi_document(prefix)
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if name not in CONTRACTS:
        raise ValueError(f"{name!r} is not a schema; there are {', '.join(NAMES)}")
    return _json(json_schema(name))


def files() -> dict[str, str]:
    """File name to content of everything that lies in `generated/`."""
    found = {f"{name}.schema.json": render(name) for name in CONTRACTS}
    found["asyncapi.yaml"] = render("asyncapi")
    found["asyncapi.json"] = _json(asyncapi_document())
    return found


def check(folder: Path = GENERATED) -> list[str]:
    """What is wrong with the files in `folder`, one line each; empty when all are as generated."""
    expected = files()
    problems: list[str] = []
    for name, text in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing; {_REMEDY}")
        elif path.read_text(encoding="utf-8") != text:
            problems.append(f"{name}: differs from the models; {_REMEDY}")
    found = sorted(path.name for path in folder.glob("*") if path.is_file())
    problems += [
        f"{name}: belongs to no schema; remove it" for name in found if name not in expected
    ]
    return problems


def write(folder: Path) -> list[Path]:
    """Writes every file into `folder`, which is made if need be; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, text in files().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """`driftline schema`; returns the exit code: 0 fine, 1 a file is stale, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="driftline schema",
        description="Print a published schema. Without a name: list them.",
    )
    parser.add_argument("name", nargs="?", choices=NAMES, help="the schema to print")
    parser.add_argument("--prefix", default="driftline", help="prefix of driftline's topics")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write all files into DIR")
    parser.add_argument(
        "--check", action="store_true", help="fail when the files of DIR, or the installed, differ"
    )
    given = parser.parse_args(arguments)
    if given.check:
        problems = check(given.out or GENERATED)
        print("\n".join(problems), end="\n" if problems else "")
        return 1 if problems else 0
    if given.out:
        print("\n".join(str(path) for path in write(given.out)))
    elif given.name:
        print(render(given.name, given.prefix), end="")
    else:
        for contract in CONTRACTS.values():
            print(f"{contract.name:<10} {contract.title}, JSON Schema, {contract.urn}")
        print(f"{'asyncapi':<10} The whole bus, AsyncAPI 3.0")
    return 0


def _json(document: object) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


if __name__ == "__main__":
    sys.exit(main())
