"""How often things may happen."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

Clock = Callable[[], float]

_MOST_PEERS = 256


class TokenBucket:
    """`burst` at once, `rate` a second in the long run. Not safe from several threads."""

    def __init__(self, burst: float, rate: float, clock: Clock = time.monotonic) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    def ready(self) -> bool:
        """Whether there is one to take."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens >= 1

    def take(self) -> bool:
        """Take one if there is one."""
        if not self.ready():
            return False
        self._tokens -= 1
        return True

    def spend(self, tokens: float) -> None:
        """Take as many, also where there are fewer: the next one is then a while away."""
        self.ready()
        self._tokens -= tokens

    def seconds_to_next(self) -> float:
        """Return how long to wait for the next one."""
        return 0.0 if self.ready() else (1 - self._tokens) / self._rate


class PeerBuckets:
    """A bucket for each client, as many as were heard of lately. Not safe from several threads."""

    def __init__(self, burst: float, rate: float, clock: Clock = time.monotonic) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def of(self, peer: str) -> TokenBucket:
        """Return the bucket of the client at an address."""
        network = network_of(peer)
        bucket = self._buckets.pop(network, None) or TokenBucket(self._burst, self._rate, self._clock)
        self._buckets[network] = bucket
        while len(self._buckets) > _MOST_PEERS:
            self._buckets.popitem(last=False)
        return bucket


def network_of(peer: str) -> str:
    """Return what stands for one client: its address, of IPv6 its /64, of which anybody has 2**64 addresses."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
