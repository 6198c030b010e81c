"""driftline.yaml's Kafka client properties as settings of Faust.

driftline.yaml speaks librdkafka (`kafka: {security.protocol: SASL_SSL, …}`); Faust's aiokafka
driver has settings of its own. (Faust's confluent driver would take librdkafka's names, but it
drops message headers and timestamps.) Who is talked to, and as whom, is translated exactly or
refused: `ConfigError`. What only tunes the client is translated where Faust has it, else left out.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any

import faust
from faust.types.auth import CredentialsT

from ...schemas.errors import ABSENT, ConfigError, Problem

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
DEFAULT_PORT = 9092

# After a SIGKILL the partitions of the dead move on when its session ends, and verdicts are to
# become alerts again within 10 s; 6 s is the least brokers allow (group.min.session.timeout.ms).
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_INTERVAL_S = 1.5
# Must exceed the session timeout. A request to a broker that vanished without a word ends here.
REQUEST_TIMEOUT_S = 30.0
# An alert waits this long for a broker that is away; then the stage ends, to be started again.
DELIVERY_TIMEOUT_S = 120.0

_SECURITY = re.compile(r"(security|sasl|ssl|enable\.(ssl|sasl))([._]|$)")
# librdkafka's name → Faust's setting and what its value is divided by (milliseconds to seconds).
_TUNING: Mapping[str, tuple[str, int]] = {
    "client.id": ("broker_client_id", 0),
    "session.timeout.ms": ("broker_session_timeout", 1000),
    "heartbeat.interval.ms": ("broker_heartbeat_interval", 1000),
    "compression.type": ("producer_compression_type", 0),
    "compression.codec": ("producer_compression_type", 0),
    "message.max.bytes": ("producer_max_request_size", 0),
}

log = logging.getLogger("driftline.alert")


def faust_settings(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for `faust.App` that reach the same brokers in the same way.

    properties: librdkafka's names, secrets in the clear (`Config.client_properties()`).
    Raises ConfigError naming the property that has no counterpart in Faust, and what to write.
    """
    settings: dict[str, Any] = {
        "broker": _brokers(str(properties["bootstrap.servers"])),
        "broker_credentials": _credentials(properties),
        "broker_session_timeout": SESSION_TIMEOUT_S,
        "broker_heartbeat_interval": HEARTBEAT_INTERVAL_S,
        "broker_request_timeout": REQUEST_TIMEOUT_S,
        "producer_request_timeout": DELIVERY_TIMEOUT_S,
    }
    unused: list[str] = []
    for name, value in properties.items():
        if name in _TUNING:
            setting, divisor = _TUNING[name]
            settings[setting] = float(value) / divisor if divisor else value
        elif not _SECURITY.match(name) and name != "bootstrap.servers":
            unused.append(name)
    if settings.get("producer_compression_type") == "none":
        del settings["producer_compression_type"]
    # aiokafka refuses a session that outlasts a request.
    least_s = settings["broker_session_timeout"] + 1
    settings["broker_request_timeout"] = max(REQUEST_TIMEOUT_S, least_s)
    if unused:
        log.info("the alert stage's client has no setting for %s", ", ".join(sorted(unused)))
    return settings


def _brokers(servers: str) -> list[str]:
    """`kafka://host:port` of each server; a protocol before a host (`SSL://`) is left out."""
    hosts = (server.strip().rpartition("://")[2] for server in servers.split(","))
    return [
        f"kafka://{host}" if _has_port(host) else f"kafka://{host}:{DEFAULT_PORT}" for host in hosts
    ]


def _has_port(host: str) -> bool:
    return re.search(r":\d+$", host) is not None and not host.endswith("]")


def _credentials(properties: Mapping[str, Any]) -> CredentialsT | None:
    left = {k: v for k, v in properties.items() if _SECURITY.match(k)}
    protocol = str(left.pop("security.protocol", "plaintext")).lower()
    if protocol not in PROTOCOLS:
        raise _refuse("security.protocol", protocol, f"must be one of {', '.join(PROTOCOLS)}", "")
    context = _ssl_context(left) if protocol.endswith("ssl") else None
    credentials = _sasl(left, context) if protocol.startswith("sasl") else None
    if protocol == "plaintext":
        left = {}  # librdkafka, too, has no use for the others
    for name in left:
        rule = "the alert stage's client (aiokafka, by way of Faust) has nothing like it"
        raise _refuse(name, ABSENT, rule, "remove it, or run this stage with other properties")
    if credentials is None and context is not None:
        return faust.SSLCredentials(context)
    return credentials


def _sasl(left: dict[str, Any], context: ssl.SSLContext | None) -> CredentialsT:
    older = left.pop("sasl.mechanisms", "GSSAPI")  # librdkafka's default
    mechanism = str(left.pop("sasl.mechanism", older)).upper()
    if mechanism not in SASL_MECHANISMS:
        rule = f"the alert stage supports {', '.join(SASL_MECHANISMS)}"
        raise _refuse("sasl.mechanism", mechanism, rule, "write for example SCRAM-SHA-512")
    for name in ("sasl.username", "sasl.password"):
        if name not in left:
            raise _refuse(name, ABSENT, f"the key is required by {mechanism}", "write it")
    return faust.SASLCredentials(
        username=str(left.pop("sasl.username")),
        password=str(left.pop("sasl.password")),
        ssl_context=context,
        mechanism=mechanism,
    )


def _ssl_context(left: dict[str, Any]) -> ssl.SSLContext:
    ca = left.pop("ssl.ca.location", None)
    where = {} if ca in (None, "probe") else {"capath" if os.path.isdir(ca) else "cafile": ca}
    try:
        # Without any of the three, the system's own store is used, as librdkafka does.
        context = ssl.create_default_context(**where, cadata=left.pop("ssl.ca.pem", None))
    except (OSError, ssl.SSLError) as error:
        rule = f"cannot be read as certificates in PEM ({error})"
        raise _refuse("ssl.ca.location", ca, rule, "name a readable file") from None
    certificate = left.pop("ssl.certificate.location", None)
    key, password = left.pop("ssl.key.location", None), left.pop("ssl.key.password", None)
    if certificate is not None or key is not None:
        try:
            context.load_cert_chain(str(certificate or key), key, password)
        except (OSError, ssl.SSLError) as error:
            rule = f"cannot be read as a certificate and its key in PEM ({error})"
            remedy = "check ssl.certificate.location, ssl.key.location and ssl.key.password"
            raise _refuse("ssl.certificate.location", certificate, rule, remedy) from None
    if str(left.pop("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    if str(left.pop("enable.ssl.certificate.verification", True)).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refuse(name: str, value: object, rule: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(f"kafka.{name}", None, value, rule, remedy)])
