"""What the side-by-side benchmarks share: peers' environments, workers, rounds, figures.

A peer runs in a virtual environment of its own, as a subprocess that reads one JSON request a line
and answers one JSON object a line (`benchmarks/peers/protocol.py` is its side). Our side runs the
same way, so both pay the same for it: nothing, since only the work between two clock reads inside
the worker counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

DEFAULT_CACHE: Final = Path("~/.cache/driftline-bench").expanduser()

# One thread everywhere; and no library may report its use to anybody while it is timed.
WORKER_ENVIRONMENT: Final[Mapping[str, str]] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONHASHSEED": "0",
}


class PeerError(Exception):
    """A peer could not be installed, started or finished; the message says why."""


def ensure_environment(requirements: Path, cache: Path, *, limit_s: float = 1800.0) -> Path:
    """The interpreter of a virtual environment holding exactly `requirements`; made once.

    The folder's name carries a digest of the file and the Python version, so a changed pin makes a
    new environment. `uv` makes it where it is on PATH, else venv and pip.

    Raises:
        PeerError: with the installer's last lines, when the requirements do not install.
    """
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:10]
    folder = cache / "environments" / f"{requirements.stem}-py{tag}-{digest}"
    interpreter = folder / "bin" / "python"
    ready = folder / ".complete"
    if ready.exists():
        return interpreter
    # What an interrupted installation left is not an environment.
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(interpreter)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(interpreter), "-m", "pip", "install", "--quiet", "--no-input",
             "--disable-pip-version-check"],
        ]  # fmt: skip
    commands[1] += ["-r", str(requirements)]
    for command in commands:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PeerError(f"{requirements.name} did not install within {limit_s:g} s") from None
        if done.returncode:
            last = done.stdout.strip().splitlines()[-1:]
            raise PeerError(
                f"{requirements.name} did not install (exit {done.returncode}): "
                + "".join(last)[:300]
            )
    ready.touch()
    return interpreter


class Worker:
    """A subprocess that holds one library and does what it is asked, one request at a time.

    Args:
        command: interpreter, script and arguments.
        log: where its stderr goes.
        limit_s: a request not answered in this time ends the worker.
        nice: added to its niceness.
    """

    def __init__(
        self, command: Sequence[str], log: Path, *, limit_s: float = 120.0, nice: int = 10
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._limit_s = limit_s
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        # A library that keeps settings does it beside the cache, not in the user's home.
        environment["XDG_CONFIG_HOME"] = str(log.parent / "config")
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                ["nice", "-n", str(nice), *command] if shutil.which("nice") else list(command),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, env=environment, cwd=log.parent,
            )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        stdout = self._process.stdout
        if stdout is None:  # pragma: no cover - PIPE was asked for
            raise PeerError("the worker has no standard output")
        threading.Thread(target=self._read, args=(stdout,), daemon=True).start()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises:
            PeerError: the worker answered with an error, ended, or took longer than its limit.
        """
        stdin = self._process.stdin
        if stdin is None:  # pragma: no cover - PIPE was asked for
            raise PeerError("the worker has no standard input")
        try:
            stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            stdin.flush()
            line = self._lines.get(timeout=self._limit_s)
        except queue.Empty:
            self.close(kill=True)
            raise PeerError(
                f"{self._log.stem}: {op!r} took longer than {self._limit_s:g} s"
            ) from None
        except BrokenPipeError:
            line = None
        if line is None:
            raise PeerError(f"{self._log.stem} ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self._log.stem}: {answer['error']}")
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-2:]) or f"exit {self._process.poll()}, nothing on stderr"

    def close(self, *, kill: bool = False) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if kill:
            self._process.kill()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed stretch: `events` stream events took `wall_s`, of which `cpu_s` on the processor.

    What is compared is processor time. Every worker has one thread and waits for nothing, so on a
    quiet machine both are the same; on a busy one only this belongs to the work.
    """

    events: int
    wall_s: float
    cpu_s: float

    @property
    def us_per_event(self) -> float:
        return self.cpu_s / self.events * 1e6


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, middle and largest of one figure over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def as_dict(self) -> dict[str, float]:
        return {"min": self.low, "median": self.median, "max": self.high}


def run(worker: Worker, first_event: int, steps: int) -> Timing:
    """Let a prepared worker take `steps` steps from `first_event`; its own clock counts."""
    answer = worker.ask("run", first_event=first_event, steps=steps)
    return Timing(answer["events"], answer["wall_s"], answer["cpu_s"])


def steps_for(worker: Worker, first_event: int, budget_s: float, most: int) -> int:
    """How many steps fit into `budget_s`: judged by the second step, the first being warm-up."""
    one_s = run(worker, first_event, 1).cpu_s
    if one_s < 5 * budget_s:
        one_s = run(worker, first_event, 1).cpu_s
    if one_s * 20 < budget_s:
        # One short step says little; the mean of some more does.
        some = min(most, 20)
        one_s = run(worker, first_event, some).cpu_s / some
    return max(1, min(most, int(budget_s / max(one_s, 1e-9))))


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def significant(value: float) -> str:
    """A figure to three significant digits, without an exponent: 74,700 or 6.28 or 0.031."""
    if value == 0 or not abs(value) < float("inf"):
        return f"{value:g}"
    digits = 2 - int(f"{value:e}".split("e")[1])
    return f"{round(value, digits):,.{max(0, digits)}f}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
