"""The examples in docstrings and in README.md are run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import driftline.detectors
import driftline.schemas
import driftline.stream

ROOT = Path(__file__).parent.parent


def modules() -> list[str]:
    packages = (driftline.schemas, driftline.detectors, driftline.stream)
    return [
        f"{package.__name__}.{module.name}"
        for package in packages
        for module in pkgutil.iter_modules(package.__path__)
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_of_a_module_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_every_detector_has_an_example_that_runs() -> None:
    for detector in driftline.detectors.detectors().values():
        examples = doctest.DocTestParser().get_examples(type(detector).__doc__ or "")
        assert examples, f"{type(detector).__name__} has no example"


def test_examples_of_the_readme_are_true() -> None:
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted > 0
    assert found.failed == 0
