from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import GomemError, LayoutError, SnapshotError
from gomem.tracer.runtime.goroutines import Goroutines, read_goroutines, system_goroutines
from tests.support.runtime_image import RuntimeImage

every_release = pytest.mark.parametrize("release", ["1.19.8", "1.21.13", "1.23.9", "1.27.3"])
MOST = (1 << 64) - 1


class Gs:
    """A runtime image with allgs."""

    def __init__(self, release: str = "1.27.3") -> None:
        self.runtime = RuntimeImage(release)
        self.runtime.globals["allgs"] = self.runtime.room(24)
        self.addresses: list[int] = []

    def add(self, fields: Mapping[str, int]) -> int:
        at = self.runtime.room(self.runtime.layout.size("g") + 64 * len(self.addresses))
        for name, value in fields.items():
            self.runtime.set("g", at, name, value)
        self.addresses.append(at)
        return at

    def read(self) -> Goroutines:
        listed = self.runtime.room(8 * max(len(self.addresses), 1))
        self.runtime.image.words(listed, *self.addresses)
        count = len(self.addresses)
        self.runtime.image.words(self.runtime.globals["allgs"], listed, count, count)
        return read_goroutines(self.runtime.image, self.runtime.layout, self.runtime.globals)


@every_release
def test_each_g_is_read_with_the_fields_of_its_release(release: str) -> None:
    image = Gs(release)
    told = {"goid": 7, "gopc": 0x1234, "startpc": 0x4321, "stack.lo": 0xC000, "stack.hi": 0xD000, "waitsince": 99}
    told |= {"sched.pc": 5, "sched.sp": 0xC800, "syscallpc": 6, "syscallsp": 0xC900, "m": 0xAB, "waitreason": 13}
    image.add({"atomicstatus": 0x1004} | told)
    image.add({"atomicstatus": 6})
    found = image.read()
    assert {name: int(found[name][0]) for name in told} == told
    assert found.status.tolist() == [4, 6]
    assert found.alive.tolist() == [True, False]
    assert found.some(found.alive).address.tolist() == image.addresses[:1]


def test_a_field_that_the_release_lacks_is_none() -> None:
    older, newer = Gs("1.19.8"), Gs("1.23.9")
    older.add({})
    newer.add({"parentGoid": 3, "syscallbp": 4})
    assert [older.read().get(name) for name in ("parentGoid", "syscallbp")] == [None, None]
    found = newer.read()
    assert (found["parentGoid"].tolist(), found["syscallbp"].tolist()) == ([3], [4])


def test_a_g_that_is_listed_twice_is_read_once() -> None:
    image = Gs()
    image.add({"goid": 1})
    image.addresses *= 3
    assert len(image.read()) == 1


def test_what_is_no_g_is_counted_and_the_others_are_read() -> None:
    image = Gs()
    image.add({"goid": 1})
    image.addresses += [0, 1, image.addresses[0] + 4, 1 << 40, 1 << 63, MOST, MOST - 7]
    image.add({"goid": 2})
    found = image.read()
    assert (sorted(found["goid"].tolist()), found.unreadable) == ([1, 2], 7)


@pytest.mark.parametrize("header", [(0, 5, 4), (1 << 40, 1 << 25, 1 << 25), (8, MOST, MOST)])
def test_a_list_that_makes_no_sense_is_refused(header: tuple[int, int, int]) -> None:
    image = Gs()
    image.runtime.image.words(image.runtime.globals["allgs"], *header)
    with pytest.raises(SnapshotError):
        read_goroutines(image.runtime.image, image.runtime.layout, image.runtime.globals)


def test_without_allgs_there_is_nothing_to_read() -> None:
    image = Gs()
    with pytest.raises(LayoutError, match="allgs"):
        read_goroutines(image.runtime.image, image.runtime.layout, {})


@given(listed=st.lists(st.integers(0, MOST), max_size=20), claimed=st.integers(0, MOST))
def test_any_list_is_read_or_refused(listed: list[int], claimed: int) -> None:
    image = Gs()
    image.add({})
    image.runtime.image.words(at := image.runtime.room(200), *listed)
    image.runtime.image.words(image.runtime.globals["allgs"], at, claimed, claimed)
    try:
        found = read_goroutines(image.runtime.image, image.runtime.layout, image.runtime.globals)
    except GomemError:
        return
    assert len(found) + found.unreadable <= claimed


def test_the_runtimes_own_are_told_by_what_they_began_with() -> None:
    names = {
        1: "main.main", 2: "runtime.main", 3: "runtime.bgsweep", 4: "runtime/pprof.write", 5: "runtime.corostart",
        6: "runtime.runFinalizers", 7: "runtime.gcBgMarkWorker", 8: "", 9: "runtime.runfinq",
    }  # fmt: skip
    starts = np.array([*names, 6], np.uint64)
    gs = Goroutines(starts, {"startpc": starts})
    own = system_goroutines(gs, names.__getitem__, lambda index: index == 9)
    assert np.flatnonzero(own).tolist() == [2, 5, 6, 8]
