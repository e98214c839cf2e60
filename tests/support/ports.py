"""Ports for servers of others, which must be told theirs before they listen."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives to connections and to port 0 (ip_local_port_range): nobody gets one of these by chance.
_PORTS = range(20_000, 32_768)

_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on; never the same twice."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise OSError("there is no free port")
