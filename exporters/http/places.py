"""Who is taken on when places are few, and who makes room. Pure: sockets are others' business."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gomem.exporters.http.limits import Limits
from gomem.exporters.http.rates import PeerBuckets


@dataclass(slots=True)
class Client:
    """The other side of a connection."""

    peer: str  # what stands for one client in all that is counted by client: an address, a network, or a user
    local: bool  # it came to a socket that only this machine can reach
    authenticated: bool = False  # by a certificate or a password, on this connection


class Place(Protocol):
    """A connection, as far as it matters here."""

    client: Client
    answered: int  # requests

    @property
    def since(self) -> float:
        """When it began to do what it does now."""
        ...

    @property
    def asks_nothing(self) -> bool:
        """Whether it waits for its client to say what he wants."""
        ...

    def overdue(self) -> float:
        """Return how many seconds longer it has held its place than it may where others want one; or less than 0."""
        ...


P = TypeVar("P", bound=Place)


class NoPlace(Exception):
    """A newcomer cannot be taken on; `reason` as it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Places(Generic[P]):
    """The connections that are open. For one thread."""

    def __init__(self, limits: Limits, authenticates: bool) -> None:
        """Begin with none. `authenticates`: clients can prove who they are, so a share is kept for those who do."""
        self._limits = limits
        self._most_unknown = limits.connections - (limits.reserved_connections if authenticates else 0)
        self._newcomers = PeerBuckets(limits.accepts_burst, limits.accepts_rate)
        self.taken: set[P] = set()
        self.greeting: set[P] = set()  # those whose TLS handshake is under way, which have no place yet

    def __len__(self) -> int:
        return len(self.taken) + len(self.greeting)

    def count_newcomer(self, peer: str) -> None:
        """Take notice of a new connection. Raises NoPlace where a client makes too many."""
        if not self._newcomers.of(peer).take():
            raise NoPlace("connection_rate")

    def end_a_greeting(self) -> P | None:
        """Return whose handshake must end so that another one can begin, None where none has to.

        It is the oldest one of the client that has most of them under way: an honest one takes milliseconds.
        """
        return _oldest_of_many(self.greeting) if len(self.greeting) >= self._limits.handshakes else None

    def make_room(self, client: Client) -> P | None:
        """Return who must go so that a client can be taken on, None where nobody has to. Raises NoPlace.

        Who has proven who he is goes last, before him who has asked for most, and only he goes who waits; if nobody
        does for long enough, one that was never answered goes, of the client that has more of them than this one.
        """
        unknown = [one for one in self.taken if not one.client.authenticated]
        crowd = self._crowd(client, unknown)
        if crowd is None:
            return None
        waiting = [one for one in crowd if one.overdue() > 0]
        if waiting:
            return min(waiting, key=lambda one: (one.client.authenticated, one.answered, -one.overdue()))
        equals = [one for one in crowd if client.authenticated or not one.client.authenticated]
        greediest = _oldest_of_many(one for one in equals if one.asks_nothing and not one.answered)
        if greediest is None or _count(equals, greediest.client.peer) <= _count(equals, client.peer) + 1:
            raise NoPlace("connections")
        return greediest

    def _crowd(self, client: Client, unknown: list[P]) -> list[P] | None:
        """Return those of whom one has to go before another can come."""
        if not client.authenticated and len(unknown) >= self._most_unknown:
            return unknown
        if len(self.taken) >= self._limits.connections:
            return list(self.taken)
        if client.authenticated:
            return None
        same = [one for one in unknown if one.client.peer == client.peer]
        return same if len(same) >= self._limits.connections_per_peer else None


def _oldest_of_many(those: Iterable[P]) -> P | None:
    """Return the oldest one of the client that has most of them."""
    found = list(those)
    by_client = Counter(one.client.peer for one in found)
    return min(found, key=lambda one: (-by_client[one.client.peer], one.since), default=None)


def _count(those: Iterable[P], peer: str) -> int:
    return sum(one.client.peer == peer for one in those)
