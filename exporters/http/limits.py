"""How much of the server clients can use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, seconds, and bytes; what a client may do beyond them is in docs/security.md."""

    connections: int = 64
    connections_per_peer: int = 32  # of one IP address, or one user of a Unix socket
    reserved_connections: int = 16  # of these, for who has proven who he is, where that can be proven
    handshakes: int = 32  # under way at a time, beside these; each takes asyncio 256 KB
    workers: int = 4  # threads that make answers
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0  # from the first moment of a connection, or first byte of a later request, to its end
    idle_seconds: float = 75.0  # between requests; Prometheus scrapes every 15 to 60 s
    answer_seconds: float = 30.0  # to make an answer
    write_seconds: float = 30.0  # until the client has read it
    connection_seconds: float = 600.0  # then it has to shake hands again, with today's certificates
    requests_burst: float = 20.0  # of one connection
    requests_rate: float = 20.0  # a second, beyond these
    accepts_burst: float = 256.0  # new connections of one IP address
    accepts_rate: float = 50.0  # a second, beyond these; others are closed without a word
    eviction_seconds: float = 1.0  # who has asked for nothing for longer makes room when there is none
    eviction_writing_seconds: float = 5.0  # so does who has not read his answer by then
    cpu_share: float = 0.05  # of one CPU in the long run; beyond it connections are answered at a lower rate
    stop_seconds: float = 2.0
    waiting_bytes: int = 64 << 20  # of different responses that clients are reading
