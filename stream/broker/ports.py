"""TCP ports of this machine's loopback interface: whether one can be had, and which is free."""

from __future__ import annotations

import random
import socket

from ...schemas.errors import BrokerError

HOST = "127.0.0.1"


def why_taken(port: int) -> OSError | None:
    """Why a server could not listen on the port now; None if it could."""
    with socket.socket() as probe:
        # As servers do: without it, connections that ended a moment ago keep the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            return error
    return None


def check_port(port: int) -> None:
    """Raises BrokerError, with the remedy, for a port on which nothing can listen."""
    error = why_taken(port)
    if error is not None:
        raise BrokerError(
            f"port {port} on {HOST} cannot be used ({error.strerror}); stop what listens there"
            f" (`ss -ltnp sport = :{port}` names it) or choose another with --port",
            retry=True,
        )


def free_port(but: int | None = None) -> int:
    """A free port, not `but`, below those the kernel gives to outgoing connections.

    From among those, a client that knocks while a broker restarts may be given the broker's own
    port as its source, connect to itself, and keep the broker from coming back.
    """
    # Not the shared generator: test runs seed it alike in processes that run side by side.
    choose = random.SystemRandom()
    for _ in range(100):
        port = choose.randrange(20_000, 32_768)
        if port != but and why_taken(port) is None:
            return port
    raise BrokerError(f"no free port found on {HOST} in 20000..32767; give one with --port")
