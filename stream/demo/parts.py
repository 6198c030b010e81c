"""What the demo runs beside its page: the stages, as a process, and the events, from a thread."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from ...schemas.errors import BrokerError, DriftlineError
from ..broker import supervisor
from ..clients import admin, producer
from ..config.document import Config
from . import files
from .flights import DAY_MS, FEBRUARY_MS, HOUR_MS, DelayModel, Year, events

STAGES_STOP_S: Final = 20.0
PRIMER_MS: Final = 50 * HOUR_MS
"""So much is sent at once: enough to fill the first window of a day and to close it. Then the clock
of the stream waits for the first alert, or the blizzard would be over before the stages are up."""


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does; and only the first of them counts.

    A second Ctrl-C would break off the stop that the first one began.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in former:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        for number in former:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def create_topic(config: Config, topic: str, n_partitions: int) -> None:
    """Raises BrokerError: the demo's broker does not make it."""
    client = admin(config)  # kept: without it the answer never comes
    try:
        client.create_topics([NewTopic(topic, n_partitions, 1)])[topic].result(20)
    except KafkaException as error:
        raise BrokerError(
            f"cannot create topic {topic!r} on the demo's broker: {error.args[0].str()}"
        ) from error


class Stages:
    """`driftline run` as a process that cannot outlive this one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self._directory / files.LOG

    def start(self) -> None:
        """Raises DriftlineError: Python cannot be started."""
        command = [sys.executable, "-m", "driftline.stream.cli", "run", "--config"]
        command.append(str((self._directory / files.CONFIG).absolute()))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", supervisor.__file__, str(os.getpid())),
                    *(str(self.log_path.absolute()), "", *command),
                ],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to us, who stop it before its broker
            )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().decode().strip()
        if not answer.isdigit():
            raise DriftlineError(f"{command[0]} cannot be run ({answer or 'no answer'})")

    def check(self) -> None:
        """Raises DriftlineError, with the end of the log, when the stages have ended."""
        if self._process is not None and self._process.poll() is not None:
            with contextlib.suppress(OSError):
                lines = self.log_path.read_text(errors="replace").splitlines()[-8:]
                said = "\n".join(lines)
                raise DriftlineError(
                    f"`driftline run` ended with exit code {self._process.returncode};"
                    f" {self.log_path} ends with\n{said}"
                )

    def stop(self) -> None:
        """Stop the stages cleanly; nothing to stop is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            for order, timeout_s in ((b"T", STAGES_STOP_S), (b"K", 5.0)):
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(order)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout_s)
                    return
            process.kill()
            process.wait()


class Feed(threading.Thread):
    """Sends the year's events at its pace, from February on, in the order in which flights left.

    sent: events so far. error: why it ended early, None if it did not.
    """

    def __init__(self, config: Config, year: Year, model: DelayModel, speed: float) -> None:
        super().__init__(name="feed", daemon=True)
        self.sent = 0
        self.error: Exception | None = None
        self._config = config
        self._year = year
        self._model = model
        self.speed = speed
        self._go = threading.Event()
        self._ending = threading.Event()
        self._started_s: float | None = None
        self._last_ms = int(year.rest.left_ms[-1])

    @property
    def stream_ms(self) -> int:
        """The clock of the stream, event time."""
        start_ms = FEBRUARY_MS + PRIMER_MS
        if self._started_s is None:
            return start_ms
        passed = (time.monotonic() - self._started_s) * self.speed
        return min(self._last_ms, start_ms + int(passed * DAY_MS))

    @property
    def done(self) -> bool:
        return not self.is_alive() and self.ident is not None

    def start_clock(self) -> None:
        """Go on behind the primer; asked for again, nothing happens."""
        self._go.set()

    def stop(self) -> None:
        self._ending.set()
        self._go.set()
        if self.ident is not None:
            self.join(10.0)

    def run(self) -> None:
        try:
            self._send()
        except Exception as error:
            self.error = error

    def _send(self) -> None:
        target = producer(self._config)
        for event in events(self._year.rest, self._model):
            while event.left_ms > self.stream_ms and not self._ending.is_set():
                if self._started_s is None:
                    target.flush(10)
                    self._go.wait()
                    self._started_s = time.monotonic()
                target.poll(0)
                # Shorter than what the eye sees, longer than what sleeping costs.
                self._ending.wait(0.02)
            if self._ending.is_set():
                break
            while True:
                try:
                    target.produce(files.INPUT_TOPIC, event.value, event.key)
                    break
                except BufferError:
                    target.poll(0.1)
            self.sent += 1
        target.flush(10)
