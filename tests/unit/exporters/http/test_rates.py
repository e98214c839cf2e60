"""Rates, with a clock that goes when told."""

from __future__ import annotations

import pytest

from gomem.exporters.http.rates import PeerBuckets, TokenBucket, network_of


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(3, 2, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_a_bucket_says_when_the_next_one_comes() -> None:
    clock = Clock()
    bucket = TokenBucket(1, 4, clock)
    assert bucket.seconds_to_next() == 0
    bucket.take()
    assert bucket.seconds_to_next() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.seconds_to_next() == 0


def test_each_client_has_a_bucket_of_its_own_and_few_are_kept() -> None:
    buckets = PeerBuckets(1, 0.001, Clock())
    assert buckets.of("10.0.0.1").take()
    assert not buckets.of("10.0.0.1").take()
    assert buckets.of("10.0.0.2").take()
    for number in range(1000):
        buckets.of(f"10.1.{number // 250}.{number % 250}")
    assert buckets.of("10.0.0.1").take()  # long forgotten


@pytest.mark.parametrize(
    ("peer", "network"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8::7", "2001:db8::/64"),
     ("fe80::1%eth0", "fe80::/64"), ("", ""), ("odd", "odd")],
)  # fmt: skip
def test_what_stands_for_one_client(peer: str, network: str) -> None:
    assert network_of(peer) == network
