"""Buckets are counted wherever they lie, once; lists that lie are an error."""

from __future__ import annotations

import random

import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.report import ProfileBuckets
from gomem.tracer.runtime.bucket_counts import LISTS, BucketCounter
from tests.support.image import Image
from tests.support.runtime_image import table

RELEASES = ("1.10", "1.19", "1.27.3")
CHUNK, CHUNK_SIZE, BUCKET = 0x7F0000001000, 256 << 10, 256
SIZE = 1 << 20  # BuckHashSys


class Lists:
    """The three lists of a runtime, of which chunks from CHUNK on are known."""

    def __init__(self, release: str = "1.27.3", chunks: int = 4) -> None:
        self.layout, self.image = table(release), Image()
        self.chunks = [(CHUNK + at * CHUNK_SIZE, CHUNK + (at + 1) * CHUNK_SIZE) for at in range(chunks)]
        for start, end in self.chunks:
            self.image.reserve(start, end - start)
        self.addresses = {
            name: self.image.reserve(0x600000 + 8 * number, 8) for name, number in LISTS.values()
        }  # fmt: skip
        self.heads = dict.fromkeys(LISTS, 0)
        self.counter = BucketCounter()

    def put(self, kind: str, address: int, number: int = 0) -> int:
        """Put a bucket before the first of its list."""
        self.image.reserve(address, self.layout.size("bucket"))
        self.set(address, "allnext", self.heads[kind])
        self.set(address, "typ", number or LISTS[kind][1])
        self.heads[kind] = address
        self.image.words(self.addresses[LISTS[kind][0]], address)
        return address

    def set(self, address: int, field: str, value: int) -> None:
        self.image.words(address + self.layout.offset("bucket", field), value)

    def count(self, counter: BucketCounter | None = None) -> tuple[int | None, int | None, int | None]:
        found = (counter or self.counter).count(self.image, self.layout, self.addresses, self.chunks[::-1], SIZE)
        assert isinstance(found, ProfileBuckets)
        return found.memory, found.block, found.mutex


@pytest.mark.parametrize("release", RELEASES)
def test_buckets_are_counted_by_kind_wherever_they_lie(release: str) -> None:
    lists, chance = Lists(release), random.Random(1)
    places = [start + at for start, end in lists.chunks for at in range(8, end - start - 56, BUCKET)]
    places += [CHUNK - (1 << 30) + 4096 * at for at in range(5)]  # in a chunk that came meanwhile
    places += [end - 48 for _, end in lists.chunks]
    chance.shuffle(places)
    kinds = [chance.choice((*LISTS, "memory", "memory")) for _ in places]
    for kind, place in zip(kinds, places, strict=True):
        lists.put(kind, place)
    assert lists.count() == tuple(kinds.count(kind) for kind in LISTS)


def test_a_runtime_that_sampled_nothing_has_none_and_a_list_that_was_not_found_is_not_known() -> None:
    lists = Lists()
    assert lists.count() == (0, 0, 0)
    lists.put("mutex", CHUNK)
    del lists.addresses["bbuckets"]
    assert lists.count(BucketCounter()) == (0, None, 1)


def test_what_was_counted_is_not_read_again() -> None:
    lists = Lists()
    first = [lists.put("memory", CHUNK + BUCKET * at) for at in range(500)]
    assert lists.count() == (500, 0, 0)
    lists.set(first[250], "typ", 9)
    lists.put("memory", CHUNK + BUCKET * 500)
    lists.put("block", CHUNK + BUCKET * 501)
    assert lists.count() == (501, 1, 0)
    before = lists.image.bytes_read
    assert lists.count() == (501, 1, 0)
    assert lists.image.bytes_read - before == 8 * len(LISTS)
    with pytest.raises(SnapshotError, match="is none"):
        lists.count(BucketCounter())


@pytest.mark.parametrize("to", [0, 499])
def test_a_list_that_returns_to_where_it_was_is_an_error(to: int) -> None:
    lists = Lists()
    places = [lists.put("memory", CHUNK + BUCKET * at) for at in range(500)]
    lists.set(places[0], "allnext", places[to])
    with pytest.raises(SnapshotError, match="more profile buckets than there can be: 16,384"):
        lists.count()


@pytest.mark.parametrize("place", [1, CHUNK + 4, (1 << 64) - 8, CHUNK - 4096, CHUNK + 4 * CHUNK_SIZE - 8])
def test_a_list_that_leads_to_what_is_none_is_an_error(place: int) -> None:
    lists = Lists()
    lists.set(lists.put("memory", CHUNK), "allnext", place)
    with pytest.raises(SnapshotError):
        lists.count()


def test_a_list_of_another_kind_is_an_error() -> None:
    lists = Lists()
    lists.put("memory", CHUNK, number=2)
    with pytest.raises(SnapshotError, match="is none"):
        lists.count()


def test_a_list_that_does_not_lead_to_what_was_counted_is_an_error() -> None:
    lists = Lists()
    lists.put("memory", CHUNK)
    assert lists.count() == (1, 0, 0)
    lists.heads["memory"] = 0
    lists.put("memory", CHUNK + BUCKET)
    with pytest.raises(SnapshotError, match="leads to what is none"):
        lists.count()


def test_a_list_that_jumps_between_more_chunks_than_are_kept_ends() -> None:
    chunks = 70
    lists = Lists(chunks=chunks)
    for at in range(2000):
        lists.put("memory", CHUNK + at % chunks * CHUNK_SIZE + at // chunks * BUCKET)
    with pytest.raises(SnapshotError, match="to and fro"):
        lists.count()


def test_chunks_that_lie_are_no_bound() -> None:
    lists = Lists()
    for at in range(100):
        lists.put("memory", CHUNK + BUCKET * at)
    lists.chunks = [(CHUNK + 4, CHUNK + CHUNK_SIZE), (CHUNK + 12, CHUNK + 5000), (CHUNK, 1), (5, 5)]
    assert lists.count() == (100, 0, 0)
