"""The report of a tuning."""

from __future__ import annotations

from pathlib import Path

from .work import Tuned


def write_page(tuned: Tuned, path: Path) -> None:
    raise NotImplementedError
