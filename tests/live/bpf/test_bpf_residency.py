"""Page faults and resident bytes, counted in the kernel: compared with what /proc says of the same process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf import page_faults
from gomem.bpf.one_target import read_status
from gomem.bpf.source import BpfSource
from gomem.tracer.events.after_exec import AfterExec
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES, OptionalRole
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.model.live_residency import LiveResidency
from gomem.tracer.process.launch import Launched
from gomem.tracer.report import ResidentSizes
from tests.support.bpf.tracing import gather
from tests.support.builds import build
from tests.support.processes import running, wait_until

pytestmark = pytest.mark.bpf

PAGE = os.sysconf("SC_PAGESIZE")
# What changes on other CPUs have under way at the last change, and before Linux 6.17 what /proc/PID/status leaves out.
INEXACT = 64 * PAGE * (os.cpu_count() or 1)
FORKS = """
import mmap, os, sys
alive, ended = os.pipe()
for line in sys.stdin:
    there, back = os.pipe()
    child = os.fork()
    if not child:
        os.close(ended)
        block = mmap.mmap(-1, 4000 * 4096)
        for at in range(0, len(block), 4096):
            block[at] = 1
        os.write(back, b"x")
        os.read(alive, 1)
        os._exit(0)
    os.read(there, 1)
    print(child, flush=True)
"""


@dataclass
class Watched:
    """A process that does what it is told, its source, and all events so far."""

    process: subprocess.Popen[bytes]
    source: BpfSource
    events: EventBatch

    def do(self, order: str) -> str:
        """Give an order, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n".encode())
        self.process.stdin.flush()
        return self.process.stdout.readline().decode()

    def poll(self) -> None:
        """Take what there is."""
        self.events = np.concatenate((self.events, self.source.poll(0.05)))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until something is so."""

        def now() -> bool:
            self.poll()
            return condition()

        wait_until(now, what)

    def model(self) -> LiveResidency:
        """Return what the events amount to."""
        residency = LiveResidency()
        residency.feed(self.events)
        return residency

    def told(self, kind: EventKind) -> int:
        """Return how many events of a kind there were."""
        return int(np.count_nonzero(self.events["kind"] == kind))

    def counted(self) -> int:
        """Return the page faults that the events tell."""
        return int(self.events["args"][self.events["kind"] == EventKind.PAGE_FAULTS, 2].sum())

    def hits(self) -> int:
        """Return the page faults that the kernel has counted."""
        return sum(probe.hits for probe in self.source.probes() if probe.role == "page_faults")

    def at_rest(self) -> tuple[int, int]:
        """Return the faults by /proc/PID/stat and by the kernel's programs, of one moment at which none happens."""
        while True:
            before = faults_by_proc(self.process.pid), self.hits()
            time.sleep(0.02)
            if (faults_by_proc(self.process.pid), self.hits()) == before:
                return before

    def sizes(self) -> ResidentSizes:
        """Return the resident bytes by the events."""
        seen = self.model().resident()
        assert seen is not None
        return seen.now

    def agrees(self) -> bool:
        """Return whether the resident bytes of the last event are those of /proc/PID/status."""
        status, seen = read_status(self.process.pid), self.model().resident()
        assert None not in (status.rss_anon, status.rss_file, status.rss_shmem, status.vm_swap)
        by_proc = (status.rss_anon or 0, status.rss_file or 0, status.rss_shmem or 0, status.vm_swap or 0)
        if seen is None:
            return False
        by_us = (seen.now.anonymous, seen.now.file, seen.now.shmem, seen.now.swap)
        return all(abs(one - other) <= INEXACT for one, other in zip(by_us, by_proc, strict=True))


def faults_by_proc(pid: int) -> int:
    """Return the minor and major faults of a process (proc_pid_stat(5): minflt, majflt)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


@contextmanager
def watched(*command: object, roles: frozenset[OptionalRole] = RESIDENCY_ROLES) -> Iterator[Watched]:
    """Run a command that answers orders, and watch it, from when it rests for the first time."""
    with running(*command) as process:
        source = BpfSource(process.pid, ring_bytes=1 << 20, optional=roles)
        source.start()
        try:
            assert source.limits() == []
            yield Watched(process, source, no_events())
        finally:
            source.stop()


@contextmanager
def faulting(roles: frozenset[OptionalRole] = RESIDENCY_ROLES) -> Iterator[Watched]:
    """Watch tests/targets/faults."""
    with watched(build("faults", "1.25.5"), "-ask", roles=roles) as one:
        one.do("anon 1")  # it is up
        yield one


@pytest.mark.parametrize("order", ["anon", "read", "shmem", "kernel"])
def test_each_page_that_is_touched_is_a_fault_as_proc_counts_them(order: str) -> None:
    with faulting() as one:
        by_proc, by_us = one.at_rest()
        one.do(f"{order} 3000")
        now_by_proc, now_by_us = one.at_rest()
        assert now_by_proc - by_proc >= 3000
        # one that was interrupted by a signal, and comes again, is counted twice here
        assert 0 <= (now_by_us - by_us) - (now_by_proc - by_proc) <= 300
        one.until(lambda: one.counted() == one.hits(), "all faults told")
        one.source.stop()
        one.poll()
        assert one.counted() == one.hits()


def test_faults_are_told_by_who_where_and_how() -> None:
    with faulting() as one:
        one.at_rest()
        one.until(lambda: one.counted() == one.hits(), "all faults told")
        one.events = no_events()
        one.do("kernel 2000")
        one.do("read 1000")
        one.at_rest()
        one.until(lambda: one.counted() == one.hits() or one.counted() >= 3000, "all faults told")
        one.source.stop()
        one.poll()
    rows = one.events[one.events["kind"] == EventKind.PAGE_FAULTS]
    _, _, faults, _, by_kernel, writes = rows["args"].sum(axis=0).tolist()
    assert 2000 <= by_kernel <= faults - 1000
    assert 2000 <= writes <= faults - 1000
    touched: dict[int, int] = {}
    for address, size, _, bits, _, _ in rows["args"].tolist():
        assert size in (0, 64 * PAGE)
        assert bits & touched.get(address, 0) == 0, "a page is touched for the first time once"
        touched[address] = touched.get(address, 0) | bits
    assert sum(bits.bit_count() for bits in touched.values()) >= 3000


@pytest.mark.parametrize("order", ["anon 4000", "shmem 4000", "file 300", "kernel 4000"])
def test_the_resident_bytes_are_those_of_proc_status_after_every_order(order: str) -> None:
    with faulting() as one:
        one.until(one.agrees, "agreement at the start")
        before = one.sizes()
        one.do(order)
        one.until(one.agrees, f"agreement after {order}")
        full = one.sizes()
        grown = {"shmem": full.shmem - before.shmem, "file": full.file - before.file}
        wanted = int(order.split()[1]) * PAGE
        assert grown.get(order.split()[0], full.anonymous - before.anonymous) >= min(wanted, 1200 * 1024) - INEXACT
        one.do("free")
        one.until(one.agrees, "agreement after unmapping")
        seen = one.model().resident()
        assert seen is not None
        assert seen.now.total < full.total
        assert seen.peak.total >= full.total
        assert seen.now.total == seen.now.anonymous + seen.now.file + seen.now.shmem


def test_a_peak_that_was_over_before_anybody_looked_is_told() -> None:
    with faulting() as one:
        one.until(one.agrees, "agreement at the start")
        before, told = one.sizes(), one.told(EventKind.RSS)
        one.do("anon 8000")
        one.do("free")
        one.until(lambda: one.told(EventKind.RSS) > told and one.agrees(), "agreement at the end")
        seen = one.model().resident()
        assert seen is not None
        assert seen.peak.anonymous >= before.anonymous + 8000 * PAGE - INEXACT
        assert seen.peak.total >= before.total + 8000 * PAGE - INEXACT
        assert seen.now.anonymous < before.anonymous + 4000 * PAGE


def test_pages_that_others_bring_in_are_resident_and_no_faults_of_the_target() -> None:
    with faulting() as one:
        one.do("read 3000")  # now the page of zeros is mapped everywhere, which is in nobody's count
        one.until(one.agrees, "agreement at the start")
        before, (_, faults) = one.sizes(), one.at_rest()
        start = next(
            int(line.split("-")[0], 16)
            for line in Path(f"/proc/{one.process.pid}/maps").read_text().splitlines()
            if line.split()[1] == "rw-p" and sum_of(line) == 3000 * PAGE
        )
        with Path(f"/proc/{one.process.pid}/mem").open("r+b", buffering=0) as memory:
            for at in range(start, start + 3000 * PAGE, PAGE):
                memory.seek(at)
                memory.write(b"x")
        one.until(one.agrees, "agreement after another process wrote")
        assert one.sizes().anonymous - before.anonymous >= 3000 * PAGE - INEXACT
        assert one.at_rest()[1] - faults < 100


def sum_of(line: str) -> int:
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    return end - start


def test_a_forked_child_is_not_the_target() -> None:
    with watched(sys.executable, "-c", FORKS) as one:
        one.do("fork")
        one.until(one.agrees, "agreement at the start")
        before, (_, faults) = one.sizes(), one.at_rest()
        child = int(one.do("fork"))
        assert (read_status(child).rss_shmem or 0) >= 4000 * PAGE - INEXACT, "the child has touched its memory"
        one.until(one.agrees, "agreement while the child lives")
        assert one.sizes().total - before.total < 1000 * PAGE
        assert one.at_rest()[1] - faults < 2000  # its own copies of pages that it shared


def test_what_a_launched_program_did_before_its_exec_is_told_before_it() -> None:
    with Launched([str(build("faults", "1.25.5"))]) as launched:
        source = BpfSource(launched.pid, optional=RESIDENCY_ROLES)
        source.start()
        try:
            launched.resume()
            events = [gather(source, EventKind.EXEC)]
            deadline = time.monotonic() + 60
            while not has_faults_and_pages_of_files(events) and time.monotonic() < deadline:
                events.append(source.poll(0.2))
            status = read_status(launched.pid)
        finally:
            os.kill(launched.pid, signal.SIGKILL)
            source.stop()
            launched.wait()
    after = AfterExec().filter(np.concatenate(events))
    faults, rss = (after[after["kind"] == kind] for kind in (EventKind.PAGE_FAULTS, EventKind.RSS))
    assert faults["args"][:, 2].sum() > 0
    assert (faults["time"] > after["time"][0]).all()
    # Python, which had been forked, was much larger. Right after its exec a program has no page of a file yet.
    assert int(rss["args"][0, 1]) <= (status.rss_file or 0) + INEXACT
    assert rss["args"][:, 1].max() > 0


def has_faults_and_pages_of_files(events: list[EventBatch]) -> bool:
    seen = AfterExec().filter(np.concatenate(events))
    faults, rss = (seen["args"][seen["kind"] == kind] for kind in (EventKind.PAGE_FAULTS, EventKind.RSS))
    return bool((faults[:, 2] > 0).any() and (rss[:, 1] > 0).any())


def test_faults_in_more_regions_than_can_be_told_apart_are_counted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_faults, "MOST_REGIONS", 64)
    with faulting(frozenset((OptionalRole.PAGE_FAULTS,))) as one:
        for _ in range(4):
            one.do(f"anon {64 * 64}")
        now = one.at_rest()[1]
        one.source.stop()
        one.poll()
        assert one.counted() == one.hits() >= now
    rows = one.events[one.events["kind"] == EventKind.PAGE_FAULTS]
    placed = rows[rows["args"][:, 1] > 0]
    assert len(np.unique(placed["args"][:, 0])) <= 64
    unplaced = int(rows["args"][rows["args"][:, 1] == 0, 2].sum())
    assert 0 < unplaced < now
    seen = one.model().page_faults(None, 1.0)
    assert seen is not None
    assert (seen.count, seen.unplaced) == (one.counted(), unplaced)


def test_the_end_of_a_process_is_not_taken_for_its_size() -> None:
    with faulting() as one:
        one.do("anon 5000")
        one.until(one.agrees, "agreement")
        one.process.kill()
        while EventKind.EXIT not in one.events["kind"]:
            one.poll()
        one.source.stop()
        one.poll()
        assert one.sizes().anonymous >= 5000 * PAGE


def test_one_role_without_the_other_tells_its_own_events_only() -> None:
    for role, kinds in (
        (OptionalRole.PAGE_FAULTS, {EventKind.PAGE_FAULTS}),
        (OptionalRole.RSS, {EventKind.RSS, EventKind.RSS_PEAK}),
    ):
        with faulting(frozenset((role,))) as one:
            one.do("anon 500")
            one.source.stop()
            one.poll()
            assert {EventKind(kind) for kind in one.events["kind"] if kind in RESIDENCY} == kinds


RESIDENCY = (EventKind.RSS, EventKind.RSS_PEAK, EventKind.PAGE_FAULTS)


def test_both_roles_work_in_a_pid_namespace_of_the_tracers_own() -> None:
    inside = """
import subprocess, sys
from tests.live.bpf.test_bpf_residency import faulting
with faulting() as one:
    one.do("anon 3000")
    one.until(one.agrees, "agreement")
    one.until(lambda: one.counted() == one.hits() >= 3000, "all faults told")
print("as expected")
"""
    build("faults", "1.25.5")
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", inside]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=250, check=False)
    assert (done.stdout, done.returncode) == ("as expected\n", 0), done.stderr
