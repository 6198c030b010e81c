"""`driftline run`: one stage in this process, or all of them as supervised processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Literal

from ..schemas.errors import ConfigError, DriftlineError
from .config.document import Config
from .reference.check import references

log = logging.getLogger(__name__)

Stage = Literal["ingest", "detect", "alert"]
STAGES: Final[tuple[Stage, ...]] = ("ingest", "detect", "alert")

# A stage that lives this long is well, and its next restart is immediate again.
_WELL_AFTER_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 5.0
_STOP_WITHIN_S: Final = 15.0
# The read end of a pipe whose write end only the supervisor holds: it ends when that one dies.
_PARENT_FD: Final = "DRIFTLINE_PARENT_FD"


def run_stage(config: Config, stage: Stage, log_level: str = "INFO") -> int:
    """One stage, until SIGTERM or SIGINT (0), or until it fails (1).

    Raises:
        DriftlineError: the configuration, a reference or a topic is wrong.
    """
    if stage == "alert":
        from .alert.stage import main

        _watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
        return main(config, log_level)
    from .detect import Detect
    from .ingest import Ingest

    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _watch_parent(stopping.set)
    worker = Ingest if stage == "ingest" else Detect
    try:
        worker(config, references(config), stopping.is_set).run()
    except DriftlineError:
        raise
    except Exception as error:
        log.error("stage %s failed: %s: %s", stage, type(error).__name__, error, exc_info=True)
        return 1
    return 0


def _watch_parent(ended: Callable[[], object]) -> None:
    """Stop when the supervisor is gone, however it went: nobody would restart this process."""
    number = os.environ.pop(_PARENT_FD, "")
    if not number.isdigit():
        return

    def watch() -> None:
        with os.fdopen(int(number), "rb") as pipe:
            pipe.read()
        ended()
        # What waits for a broker that has gone as well would wait for ever.
        time.sleep(_STOP_WITHIN_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass
class _Process:
    stage: Stage
    popen: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0


@dataclass
class Supervisor:
    """Runs the stages as processes and starts again those that end.

    workers: how many processes of each stage.
    """

    config_path: Path
    workers: Mapping[Stage, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 1))
    log_level: str = "INFO"

    def run(self) -> int:
        """Until SIGTERM or SIGINT (0), or until a stage says that its input is wrong (2)."""
        stopping = threading.Event()

        def stop(signum: int, frame: FrameType | None) -> None:
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        processes = [_Process(stage) for stage in STAGES for _ in range(self.workers.get(stage, 0))]
        read, self._write = os.pipe()
        self._read = read
        code = 0
        try:
            while not stopping.is_set():
                for process in processes:
                    code = self._tend(process)
                    if code:
                        stopping.set()
                        break
                stopping.wait(0.1)
        finally:
            self._stop(processes)
            os.close(read)
            os.close(self._write)
        return code

    def _tend(self, process: _Process) -> int:
        """Start a process that is not running; 2 when there is no use in it."""
        now = time.monotonic()
        popen = process.popen
        if popen is not None:
            code = popen.poll()
            if code is None:
                return 0
            process.popen = None
            if code == 2:
                return 2
            if now - process.started_s >= _WELL_AFTER_S:
                process.failures = 0
            pause = min(_LONGEST_PAUSE_S, 0.25 * (2**process.failures - 1))
            process.failures += 1
            process.not_before_s = now + pause
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            log.warning(
                "stage %s ended %s; starting it again%s",
                process.stage,
                how,
                f" in {pause:.1f} s" if pause else "",
            )
        if now >= process.not_before_s:
            process.popen = self._start(process.stage)
            process.started_s = now
        return 0

    def _start(self, stage: Stage) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "driftline.stream.cli",
            "run",
            "--stage",
            stage,
            "--config",
            str(self.config_path),
            "--log-level",
            self.log_level,
        ]
        return subprocess.Popen(
            command, pass_fds=[self._read], env={**os.environ, _PARENT_FD: str(self._read)}
        )

    @staticmethod
    def _stop(processes: Sequence[_Process]) -> None:
        running = [p.popen for p in processes if p.popen is not None and p.popen.poll() is None]
        for popen in running:
            popen.terminate()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for popen in running:
            try:
                popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def is_usage(error: DriftlineError) -> bool:
    """Whether the user must change something before another try can succeed."""
    return isinstance(error, ConfigError) or not error.retry
