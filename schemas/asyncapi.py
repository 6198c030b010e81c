"""The whole bus as one AsyncAPI 3.0 document: every topic, what is on it, and who sends it.

Seen from driftline, as AsyncAPI wants it: `receive` is what driftline reads, `send` what it writes.
What the messages look like is in `asyncapi_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from .asyncapi_messages import BINDING_VERSION, messages, schemas
from .cloudevents import CONTENT_TYPE

VERSION: Final = "1.0.0"
"""Version of the bus: the major number changes when a reader or writer has to."""

TOPICS: Final = ("panes", "drift", "alerts", "dead_letters", "state")
"""The topics driftline writes, by their keys in driftline.yaml."""

Json = dict[str, Any]


def asyncapi_document(
    prefix: str = "driftline",
    input_topic: str = "inference",
    labels_topic: str = "labels",
    server: str = "localhost:9092",
    topics: Mapping[str, str] | None = None,
) -> Json:
    """The AsyncAPI document for a bus with these names.

    prefix: what the topics driftline writes begin with. server: bootstrap address, `host:port`.
    topics: names of single topics that differ from the prefix's, by their keys in the `topics`
        section of driftline.yaml: panes, drift, alerts, dead_letters, state.
    """
    names = {name: f"{prefix}.{name.replace('_', '-')}" for name in TOPICS} | dict(topics or {})
    document = {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "kafka": {
                "host": server,
                "protocol": "kafka",
                "description": "An example; put your bootstrap server here.",
            }
        },
        "channels": _channels(names, input_topic, labels_topic),
        "operations": _operations(),
        "components": {"schemas": schemas(), "messages": messages(input_topic)},
    }
    # a plain tree: no object twice, which YAML would write as anchor and alias
    return orjson.loads(orjson.dumps(document))


def _info() -> Json:
    return {
        "title": "driftline",
        "version": VERSION,
        "description": (
            "Drift monitoring on Kafka: inference events in, verdicts and alerts out. Read the "
            "topics with isolation.level=read_committed: driftline writes panes, verdicts and "
            "dead letters in transactions, and an aborted one leaves messages behind that do not "
            "count."
        ),
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _channels(names: Mapping[str, str], input_topic: str, labels_topic: str) -> Json:
    return {
        "inference": _channel(
            input_topic,
            ("inference",),
            "Predictions of your models. Yours: any key, partition count and retention will do. "
            "Whether an event is late is judged in each partition on its own.",
        ),
        "labels": _channel(
            labels_topic,
            ("label",),
            "What turned out to be true, joined to predictions by id. Yours, and optional.",
        ),
        "panes": _channel(
            names["panes"],
            ("paneDelta", "progress"),
            "Mergeable summaries of the events of one unit and one slice of event time, and how "
            "far the input has been read; the header driftline_kind tells the two apart. This is "
            "the state of the monitor: it must be kept for as long as the largest window reaches "
            "back.",
            "delete",
        ),
        "drift": _channel(
            names["drift"],
            ("verdict",),
            "One verdict per test that was due, drifted or not. A unit's verdicts are in one "
            "partition, in the order of their windows' ends.",
            "delete",
        ),
        "alerts": _channel(
            names["alerts"],
            ("alert",),
            "Every change of state of every alert. Compacted: the newest message of a key is what "
            "holds now. A message may be repeated; a repeat has the same ce_id.",
            "compact",
        ),
        "deadLetters": _channel(
            names["dead_letters"],
            ("deadLetter",),
            "Messages that could not be used, untouched, with origin and reason in headers.",
            "delete",
        ),
        "state": _channel(
            names["state"],
            ("state",),
            "State of sequential detectors. Internal: its layout is not a contract.",
            "compact",
        ),
    }


def _channel(
    address: str, message_names: Sequence[str], description: str, cleanup: str | None = None
) -> Json:
    kafka: Json = {"topic": address}
    if cleanup is not None:
        kafka["topicConfiguration"] = {"cleanup.policy": [cleanup]}
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in message_names},
        "bindings": {"kafka": kafka | {"bindingVersion": BINDING_VERSION}},
    }


def _operations() -> Json:
    panes = ("paneDelta", "progress")
    operations = (
        ("receiveInference", "receive", "inference", ("inference",), "Read predictions (ingest)."),
        ("receiveLabels", "receive", "labels", ("label",), "Read true outcomes (join)."),
        ("sendPanes", "send", "panes", panes, "Publish summaries (ingest, join)."),
        ("receivePanes", "receive", "panes", panes, "Merge summaries into windows (detect)."),
        ("sendVerdicts", "send", "drift", ("verdict",), "Publish what tests found (detect)."),
        ("receiveVerdicts", "receive", "drift", ("verdict",), "Follow verdicts (alert)."),
        ("sendAlerts", "send", "alerts", ("alert",), "Publish changes of alerts (alert)."),
        ("sendDeadLetters", "send", "deadLetters", ("deadLetter",), "Set aside bad input."),
        ("sendState", "send", "state", ("state",), "Keep detector state (detect)."),
        ("receiveState", "receive", "state", ("state",), "Restore detector state (detect)."),
    )
    return {
        name: {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [
                {"$ref": f"#/channels/{channel}/messages/{message}"} for message in message_names
            ],
        }
        for name, action, channel, message_names, summary in operations
    }
