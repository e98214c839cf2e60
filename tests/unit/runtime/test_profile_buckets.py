"""The buckets of a heap profile in memory that was written by hand: whole, moving, and forged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Bytes
from gomem.tracer.runtime.profile_buckets import Buckets, Cycle, read_buckets, required_globals
from gomem.tracer.runtime.profile_list import MOST_FRAMES
from tests.support.image import Image
from tests.support.runtime_image import table

RELEASES = ("1.18", "1.19", "1.26", "1.27.3")  # each has its own counter of cycles, or its own records
CHUNK = 0x7F0000000000
EVERYWHERE = normalise([CHUNK], [CHUNK + (64 << 20)])

# (allocations, frees) of what is published and of the three cycles of the ring.
Counts = Sequence[tuple[int, int]]
QUIET: Counts = ((0, 0), (0, 0), (0, 0), (0, 0))


@dataclass
class Profile:
    """A heap profile in the making; the cycle is one of which the ring's index 1 is flushed next."""

    layout: Layout
    image: Image = field(default_factory=Image)
    head: int = 0
    cycle: int = 4

    def __post_init__(self) -> None:
        names = required_globals(self.layout)
        self.globals = {name: self.image.reserve(0x600000 + 4096 * at, 8) for at, name in enumerate(names)}
        self._next = CHUNK
        self.turn(self.cycle)

    def turn(self, cycle: int) -> None:
        self.cycle = cycle
        name = next(name for name in self.globals if name.startswith("mProf"))
        self.image.words(self.globals[name], cycle if name == "mProf" else cycle << 1 | 1)

    def room(self, depth: int) -> int:
        size = self.layout.size("bucket") + 8 * depth + self.layout.size("memRecord")
        address = self._next
        self._next += size
        return address

    def bucket(self, counts: Counts, stack: Sequence[int] = (1, 2, 3), size: int = 16, at: int = 0) -> int:
        """Put a bucket before the first one, and return its address."""
        address = at or self.room(len(stack))
        self.image.reserve(address, self.layout.size("bucket") + 8 * len(stack) + self.layout.size("memRecord"))
        for name, value in {"allnext": self.head, "typ": 1, "size": size, "nstk": len(stack)}.items():
            self.set(address, name, value)
        self.image.words(address + self.layout.size("bucket"), *stack)
        self.count(address, len(stack), counts)
        self.head = address
        self.image.words(self.globals["mbuckets"], address)
        return address

    def set(self, address: int, name: str, value: int) -> None:
        self.image.words(address + self.layout.offset("bucket", name), value)

    def count(self, address: int, depth: int, counts: Counts) -> None:
        record = address + self.layout.size("bucket") + 8 * depth
        future = self.layout.field("memRecord", "future")
        starts = (self.layout.offset("memRecord", "active"), *(future.offset + n * future.stride for n in range(3)))
        for start, (allocs, frees) in zip(starts, counts, strict=True):
            self.image.words(record + start + self.layout.offset("memRecordCycle", "allocs"), allocs)
            self.image.words(record + start + self.layout.offset("memRecordCycle", "frees"), frees)

    def read(self, cycle: Cycle = "published", mapped: Ranges = EVERYWHERE, image: Image | None = None) -> Buckets:
        return read_buckets(image or self.image, self.layout, self.globals, mapped, cycle)


@pytest.fixture(params=RELEASES)
def profile(request: pytest.FixtureRequest) -> Profile:
    return Profile(table(request.param))


def figures(buckets: Buckets) -> list[tuple[int, int]]:
    return list(zip(buckets.allocs.tolist(), buckets.frees.tolist(), strict=True))


def stacks(buckets: Buckets) -> list[list[int]]:
    return list(buckets.stacks())


def test_published_is_what_is_flushed_and_what_the_runtime_would_flush_first(profile: Profile) -> None:
    profile.bucket(((100, 10), (1, 0), (20, 5), (300, 7)), (11, 12), 48)
    profile.bucket(QUIET, (13,), 8)
    read = profile.read()
    assert figures(read) == [(0, 0), (120, 15)]
    assert read.object_size.tolist() == [8, 48]
    assert stacks(read) == [[13], [11, 12]]
    assert read.limits == ()


@pytest.mark.parametrize(("cycle", "shown"), [(3, (101, 10)), (4, (120, 15)), (5, (400, 17)), (300, (101, 10))])
def test_the_ring_of_open_cycles_turns(cycle: int, shown: tuple[int, int], profile: Profile) -> None:
    profile.bucket(((100, 10), (1, 0), (20, 5), (300, 7)))
    profile.turn(cycle)
    assert figures(profile.read()) == [shown]


def test_active_has_the_open_cycles_too(profile: Profile) -> None:
    profile.bucket(((100, 10), (1, 0), (20, 5), (300, 7)))
    assert figures(profile.read("active")) == [(421, 22)]


def test_before_the_first_collection_all_is_published(profile: Profile) -> None:
    profile.bucket(((0, 0), (7, 0), (0, 0), (9, 3)))
    assert figures(profile.read()) == [(16, 3)]


def test_a_profile_without_buckets_is_empty(profile: Profile) -> None:
    read = profile.read()
    assert (len(read), figures(read), stacks(read), read.limits) == (0, [], [], ())


def test_buckets_are_found_wherever_they_lie(profile: Profile) -> None:
    chance = random.Random(1)
    expected: list[list[int]] = []
    largest = 8 * MOST_FRAMES + 1024
    for number in range(300):
        depth = chance.choice((0, 1, 30, 128, MOST_FRAMES))
        at = CHUNK + (number % 40 << 18) + number // 40 * largest * 2 + (1 << 18) - largest // 2 & -8
        stack = [number * MOST_FRAMES + level for level in range(depth)]
        profile.bucket(((number + 1, 0), *QUIET[1:]), stack, 8 * number, at)
        expected.insert(0, stack)
    profile.image.reserve(CHUNK, 64 << 20)
    for mapped in (EVERYWHERE, normalise([], []), normalise([CHUNK], [CHUNK + (3 << 18) + 8 * 7])):
        read = profile.read(mapped=mapped)
        assert read.limits == ()
        assert stacks(read) == expected
        assert read.allocs.tolist() == list(range(300, 0, -1))


def test_a_bucket_where_what_was_read_ends_is_read_with_its_own_block(profile: Profile) -> None:
    header, record = profile.layout.size("bucket"), profile.layout.size("memRecord")
    end = (
        CHUNK + (1 << 18) + header + 8 * MOST_FRAMES + record
    )  # blocks of 256 KB, with what their last bucket may need
    profile.bucket(((1, 0), *QUIET[1:]), range(100), at=end - header - 8)
    profile.bucket(((2, 0), *QUIET[1:]), (1, 2), at=CHUNK + 64)
    profile.image.reserve(CHUNK, 64 << 20)
    read = profile.read()
    assert read.limits == ()
    assert read.allocs.tolist() == [2, 1]
    assert stacks(read) == [[1, 2], list(range(100))]


def test_buckets_that_lie_in_each_other_are_shown_in_part(profile: Profile) -> None:
    profile.image.reserve(CHUNK, 4 << 20)
    step, count = 64, 1000
    for number in range(count):
        at = CHUNK + number * step
        for name, value in {"allnext": at - step if number else 0, "typ": 1, "size": 16, "nstk": MOST_FRAMES}.items():
            profile.set(at, name, value)
    profile.image.words(profile.globals["mbuckets"], CHUNK + (count - 1) * step)
    read = profile.read()
    assert [limit.id for limit in read.limits][:1] == ["profile-partly"]
    assert len(read.which) * 8 <= (1 << 18) + 16384


class Moving(Image):
    """Memory whose runtime does something before the reads of given numbers."""

    def __init__(self, still: Image, moves: dict[int, object]) -> None:
        super().__init__(still.copy().pages)
        self._shared = set(self.pages)
        self._moves = moves
        self._reads = 0

    def read(self, address: int, size: int) -> bytes:
        self._move()
        return super().read(address, size)

    def read_into(self, address: int, buffer: Bytes) -> None:
        self._move()
        super().read_into(address, buffer)

    def _move(self) -> None:
        self._reads += 1
        move = self._moves.get(self._reads)
        if callable(move):
            move(self)


BEFORE: Counts = ((100, 10), (1, 0), (20, 5), (300, 7))
FLUSHED: Counts = ((400, 17), (1, 0), (20, 5), (0, 0))  # PostSweep: the next cycle is published before its time


@pytest.mark.parametrize("at", range(1, 24))
@pytest.mark.parametrize("cycle", ["published", "active"])
def test_a_flush_between_two_buckets_is_seen(cycle: Cycle, at: int, profile: Profile) -> None:
    # They lie in different blocks, which are read one after the other.
    places = [profile.bucket(BEFORE, (number,), at=CHUNK + (number << 20)) for number in range(4)]

    def flush(bucket: int) -> object:
        def move(image: Image) -> None:
            still, profile.image = profile.image, image
            profile.count(bucket, 1, FLUSHED)
            profile.image = still

        return move

    moving = Moving(profile.image, {at + number: flush(place) for number, place in enumerate(places)})
    read = profile.read(cycle, image=moving)
    assert read.limits == ()
    assert len(set(figures(read))) == 1
    assert set(figures(read)) <= ({(421, 22)} if cycle == "active" else {(120, 15), (420, 22)})


def test_a_runtime_that_never_stops_moving_is_told(profile: Profile) -> None:
    place = profile.bucket(BEFORE, (1,))

    def move(image: Image) -> None:
        still, profile.image = profile.image, image
        moves[0] += 1
        profile.count(place, 1, ((moves[0], 0), *QUIET[1:]))
        profile.image = still

    moves = [1]
    read = profile.read(image=Moving(profile.image, dict.fromkeys(range(1, 1000), move)))
    assert [limit.id for limit in read.limits] == ["profile-moment"]
    assert len(read) == 1


@pytest.mark.parametrize("back", [0, 1, 7])
def test_a_list_that_returns_shows_each_bucket_once(back: int, profile: Profile) -> None:
    places = [profile.bucket(((number + 1, 0), *QUIET[1:]), (number,)) for number in range(9)]
    profile.set(places[0], "allnext", places[back])
    read = profile.read()
    assert [limit.id for limit in read.limits] == ["profile-partly"]
    assert "returns" in read.limits[0].why
    assert read.allocs.tolist() == list(range(9, 0, -1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("nstk", MOST_FRAMES + 1), ("nstk", 1 << 63), ("typ", 2), ("typ", 0), ("allnext", 0x1234), ("allnext", 1 << 47),
     ("allnext", (1 << 64) - 8), ("allnext", CHUNK + 9), ("allnext", 0x600001)],
)  # fmt: skip
def test_what_is_no_bucket_ends_the_list(name: str, value: int, profile: Profile) -> None:
    wrong = profile.bucket(((1, 0), *QUIET[1:]))
    right = [profile.bucket(((2, 1), *QUIET[1:])) for _ in range(3)]
    profile.set(wrong, name, value)
    read = profile.read()
    assert [limit.id for limit in read.limits] == ["profile-partly"]
    assert figures(read)[: len(right)] == [(2, 1)] * 3
    assert len(read) == len(right) + (name == "allnext")


@pytest.mark.parametrize("counts", [(1, 2), (1 << 60, 0), ((1 << 64) - 1, 0), (5, (1 << 64) - 2), (1 << 47, 3)])
def test_counts_that_no_runtime_reaches_are_left_out(counts: tuple[int, int], profile: Profile) -> None:
    profile.bucket(((7, 2), *QUIET[1:]), (1, 2))
    profile.bucket((counts, *QUIET[1:]), (3,), size=1 << 20)
    profile.bucket(((8, 2), *QUIET[1:]), (4, 5))
    read = profile.read()
    assert [limit.id for limit in read.limits] == ["profile-buckets"]
    assert figures(read) == [(8, 2), (7, 2)]
    assert stacks(read) == [[4, 5], [1, 2]]


def test_more_buckets_than_there_is_room_for_are_shown_in_part(profile: Profile) -> None:
    for number in range(9000):
        profile.bucket(((1, 0), *QUIET[1:]), (number,))
    profile.image.room = Room(2 << 20)
    read = profile.read()
    assert [limit.id for limit in read.limits] == ["profile-partly"]
    assert 0 < len(read) < 9000


def test_whatever_is_written_into_the_buckets_reading_ends(profile: Profile) -> None:
    chance = random.Random(2)
    for number in range(60):
        profile.bucket(((number + 2, number), (1, 0), (3, 2), (4, 0)), range(number % 7))
    end = profile.room(0)
    lies = (0, 1, 8, CHUNK, CHUNK + 8, end - 8, 1 << 20, 1 << 47, (1 << 63) - 1, (1 << 64) - 1, MOST_FRAMES)
    for _ in range(80):
        forged = profile.image.copy()
        for _ in range(chance.randrange(1, 6)):
            forged.words(chance.randrange(CHUNK, end, 8), chance.choice(lies))
        read = profile.read(chance.choice(("published", "active")), image=forged)
        assert len(read) <= 60 + 2
        assert np.all(read.frees <= read.allocs)
        assert len(read.which) == read.first[-1]
