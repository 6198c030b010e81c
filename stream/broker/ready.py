"""Whether a Kafka that was just started can be used: asked by real requests, not by its log."""

from __future__ import annotations

import socket
from collections.abc import Callable

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ...schemas.errors import BrokerError

CHECK_ID = "driftline-broker-check"  # group and transactional id of the questions


def checks(host: str, port: int, cluster_id: str) -> tuple[Callable[[float], None], ...]:
    """Questions to be asked in this order, each until it is answered.

    A question takes the seconds it may wait, and raises OSError or KafkaException when the answer
    is not yes yet, BrokerError when it never will be. The last two also make the broker create the
    topics of its coordinators, for which the first client would else wait.
    """
    # log_level 0: librdkafka would print each refused connection.
    client: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"{host}:{port}",
        "log_level": 0,
    }

    def listens(timeout_s: float) -> None:
        # Asked without a client, whose back-off would make us late.
        socket.create_connection((host, port), timeout_s).close()

    def is_ours(timeout_s: float) -> None:
        found = AdminClient(client).list_topics(timeout=timeout_s).cluster_id
        if found != cluster_id:
            raise BrokerError(
                f"port {port} on {host} belongs to another Kafka (cluster {found}, ours is"
                f" {cluster_id}); stop that or use another port"
            )

    def coordinates_groups(timeout_s: float) -> None:
        # Asked as a consumer: librdkafka 2.16's admin client brings the process down (SIGSEGV)
        # when a group's coordinator is not ready.
        consumer = Consumer({**client, "group.id": CHECK_ID})
        consumer.committed([TopicPartition("__consumer_offsets", 0)], timeout_s)
        consumer.close()

    def coordinates_transactions(timeout_s: float) -> None:
        Producer({**client, "transactional.id": CHECK_ID}).init_transactions(timeout_s)

    return listens, is_ours, coordinates_groups, coordinates_transactions
