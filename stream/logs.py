"""Log lines of the stages: one line each on standard error, UTC, no traceback unless debugging."""

from __future__ import annotations

import logging
import sys
import time


class OneLine(logging.Formatter):
    """`2026-11-21T08:00:00Z WARNING driftline.stream.detect: …`."""

    converter = time.gmtime

    def __init__(self, tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if not self._tracebacks:
            record.exc_info = record.exc_text = record.stack_info = None
        return " ".join(super().format(record).split("\n"))


def log_to_stderr(level: str) -> None:
    """Send driftline's log records of at least `level` to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(logging.getLevelName(level.upper()) <= logging.DEBUG))
    logger = logging.getLogger("driftline")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
