from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.errors import TargetGone
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.kernel.pagemap import read_residency
from gomem.tracer.kernel.residency import Method, Page, Residency
from gomem.tracer.kernel.smaps import Rollup, read_rollup, read_smaps
from gomem.tracer.process.target import Target
from tests.support.occupant import HUGE, PAGE, Occupant, occupant
from tests.support.pages import having

METHODS: list[Method] = ["pagemap_scan", "pagemap"]
KNOWN = [
    "touched", "dontneed", "lazily_freed", "zero_pages", "guarded", "protected", "reservation", "memfd", "forked",
]  # fmt: skip
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def look(pid: int, method: Method) -> tuple[Residency, Rollup]:
    """Read a process that stands still: both views must be of the same state."""
    with Target.open(pid) as target:
        read = read_mappings(target)
        assert read.skew_bytes == 0
        # Reading again after the rollup tells whether it really stood still.
        for _ in range(5):
            residency = read_residency(target, read.mappings, method)
            rollup = read_rollup(target)
            if read_residency(target, read.mappings, method).rss_bytes == residency.rss_bytes:
                break
    return residency, rollup


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("occupation", KNOWN)
def test_the_pages_that_were_touched_are_those_that_are_resident(occupation: str, method: Method) -> None:
    with occupant(occupation) as process:
        residency, rollup = look(process.pid, method)
        here = int(residency.rss_in(*process.place)[0])
    assert here == process.said["resident"]
    assert residency.rss_bytes == rollup.rss
    assert int(residency.swap.sum()) == 0
    assert residency.exact
    assert residency.method == method
    if "lazy_free" in process.said:
        # The kernel leaves out pages that are still in a per-CPU batch on their way to the LRU lists.
        assert rollup.lazy_free is not None
        assert process.said["lazy_free"] - 64 * PAGE <= rollup.lazy_free <= process.said["lazy_free"]
    if "zero" in process.said:
        zero = having(residency, Page.ZERO)
        assert zero.start.tolist() == [process.said["address"]]
        assert zero.bytes == process.said["zero"]
    if "shmem" in process.said:
        (start,), (end,) = process.place
        inside = (residency.ranges.start >= start) & (residency.ranges.end <= end)
        assert (residency.flags[inside] & Page.FILE != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_huge_page_counts_whole_and_the_huge_zero_page_not_at_all(method: Method) -> None:
    with occupant("huge_pages") as process:
        residency, rollup = look(process.pid, method)
        starts = [process.said["written"], process.said["looked_at"]]
        huge = residency.rss_in(starts, [start + HUGE for start in starts])
    if rollup.anon_huge_pages == 0:
        pytest.skip("this kernel gives no transparent huge pages")
    assert huge.tolist() == [HUGE, 0]
    assert residency.rss_bytes == rollup.rss
    if method == "pagemap_scan":
        assert having(residency, Page.HUGE, without=Page.ZERO).bytes == HUGE


@pytest.fixture
def huge_page_pool() -> Iterator[None]:
    """Two reserved huge pages for the time of the test."""
    before = POOL.read_text() if POOL.exists() else None
    try:
        POOL.write_text(str(int(before or 0) + 2))
    except OSError:
        pytest.skip("no huge pages can be reserved here")
    yield
    POOL.write_text(before or "0")


@pytest.mark.usefixtures("huge_page_pool")
@pytest.mark.parametrize("method", METHODS)
def test_reserved_huge_pages_are_in_ram_but_not_in_rss(method: Method) -> None:
    with occupant("hugetlb") as process:
        if "errno" in process.said:
            pytest.skip("no huge pages can be mapped here")
        residency, rollup = look(process.pid, method)
        here = int(residency.rss_in(*process.place)[0])
    assert here == 0
    assert having(residency, Page.HUGETLB | Page.PRESENT).bytes == process.said["hugetlb"] == rollup.private_hugetlb
    assert residency.rss_bytes == rollup.rss


@pytest.mark.parametrize("occupation", ["touched", "zero_pages", "reservation", "memfd"])
def test_smaps_gives_the_same_sums_without_the_pages(occupation: str) -> None:
    with occupant(occupation) as process:
        residency, rollup = look(process.pid, "smaps")
        here = int(residency.rss_in(*process.place)[0])
    assert (here, residency.rss_bytes, residency.exact) == (process.said["resident"], rollup.rss, False)


def test_scattered_pages_beyond_one_batch_are_all_found() -> None:
    with occupant("scattered") as process:
        for method in METHODS:
            residency, rollup = look(process.pid, method)
            assert residency.rss_in(*process.place).tolist() == [process.said["resident"]]
            assert residency.rss_bytes == rollup.rss
            (start,), (end,) = process.place
            inside = residency.ranges.start[(residency.ranges.start >= start) & (residency.ranges.end <= end)]
            assert np.array_equal(inside, start + np.arange(len(inside), dtype=np.uint64) * np.uint64(2 * PAGE))


def test_full_smaps_agrees_with_the_rollup() -> None:
    with occupant("memfd") as process, Target.open(process.pid) as target:
        rollup, rows = read_rollup(target), read_smaps(target).rollup()
    for name in ("rss", "anonymous", "lazy_free", "private_dirty", "swap", "shared_clean"):
        assert getattr(rows, name) == getattr(rollup, name), name


def test_a_hundred_gigabytes_of_reservations_cost_no_seconds() -> None:
    with occupant("reservation") as process, Target.open(process.pid) as target:
        mappings = read_mappings(target).mappings
        for method in METHODS:
            began = time.process_time()
            read_residency(target, mappings, method)
            assert time.process_time() - began < 2, method


def test_the_residency_of_an_exited_process_is_refused() -> None:
    with occupant("touched") as process, Target.open(process.pid) as target:
        mappings = read_mappings(target).mappings
        gone(process)
        with pytest.raises(TargetGone):
            read_residency(target, mappings)
        with pytest.raises(TargetGone):
            read_mappings(target)


def gone(process: Occupant) -> None:
    process.process.kill()
    process.process.wait()
