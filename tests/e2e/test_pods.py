"""`gomem pod`, and what reports say of the cgroup, against the kernel: what it takes back, counts and charges."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.exporters.json.schema import POD_FILE, validate
from gomem.tracer.report import Report
from gomem.tracer.report.pod import PodReport
from tests.kernels.guest import DISK
from tests.support.bpf_objects import held_by, map_holder
from tests.support.builds import build
from tests.support.charged import RELEASE, Charged, bill_of, charged
from tests.support.command import gomem
from tests.support.discovery.cgroups import remove
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.processes import rss, running, wait_until
from tests.support.requirements import absent
from tests.support.seen import look_at, told

MB = 1 << 20
SIZE = 120 * MB
SLACK = 4 * MB  # the kernel's own records, and what it has at hand for each CPU
OF_CGROUPS = {"working-set-page-cache", "cgroup-tmpfs", "cgroup-kernel-memory", "cgroup-other-processes"}
UID = "0c3f0e6b-8d8a-4c0e-9d5f-1d2a3b4c5d6e"


def is_on_disk(path: Path) -> bool:
    """Tell whether pages of files there are page cache of a disk, not memory or another's."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout
    return kind.strip() not in ("tmpfs", "overlayfs", "ramfs", "v9fs")


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A file to be made on a disk."""
    if not is_on_disk(tmp_path):
        absent("there is no disk for temporary files")
    return tmp_path / "file"


@pytest.fixture
def uncached(tmp_path: Path) -> Path:
    """A file or a disk of SIZE and more of which no page is in RAM."""
    if not is_on_disk(tmp_path):  # in a virtual machine of tests/kernels: its swap
        return DISK if DISK.is_block_device() else absent("there is no disk")
    path = tmp_path / "file"
    with path.open("wb") as file:
        for _ in range(SIZE // MB):
            file.write(bytes(MB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A file on a tmpfs."""
    path = Path(f"/dev/shm/gomem-test-{os.getpid()}")
    yield path
    path.unlink(missing_ok=True)


def about(*bodies: Report | PodReport) -> list[set[str]]:
    """Return what of the findings is about cgroups."""
    return [OF_CGROUPS & {one.id for one in body.findings} for body in bodies]


def is_taken_back(one: Charged, size: int) -> None:
    """Hold what could be reclaimed, and the working set, against the kernel."""
    bill = one.look()[1].bill
    assert bill.working_set is not None
    assert bill.reclaimable is not None
    assert abs(bill.working_set - one.working_set()) <= SLACK
    assert abs(bill.reclaimable - size) <= 3 * SLACK, "some pages are on no list yet"
    before = one.usage()
    one.reclaim()
    assert abs(before - one.usage() - bill.reclaimable) <= 2 * SLACK


def test_page_cache_that_the_program_wrote_is_in_the_working_set_and_the_kernel_takes_it_back(on_disk: Path) -> None:
    with charged("used", SIZE, on_disk) as one:
        report, bill = one.look()
        page = gomem("pod", one.pid).stdout
        is_taken_back(one, SIZE)
        after = one.look()
    assert about(report, bill) == [{"working-set-page-cache"}] * 2
    found = next(found for found in report.findings if found.id == "working-set-page-cache")
    assert found.title.endswith("120 MiB is page cache of files that this process wrote")
    assert isinstance(found.evidence["written"], int)
    assert found.evidence["written"] >= SIZE
    assert (bill.path, bill.bill.limit, bill.bill.limited_by) == (one.path, 400 * MB, one.path)
    assert bill.bill.unmapped is not None
    assert bill.bill.unmapped >= SIZE
    assert report.cgroup_bills is not None
    assert report.cgroup_bills[0].parts.keys() == bill.bill.parts.keys()
    assert "120 MiB is page cache of files that its processes wrote" in " ".join(page.split())
    assert about(*after) == [set(), set()], "the kernel has it back"


def test_page_cache_that_the_program_read_is_said_to_be_read(uncached: Path) -> None:
    with charged("read", SIZE, uncached) as one:
        report, bill = one.look()
        in_working_set = one.working_set() >= SIZE
        is_taken_back(one, SIZE)
    if not in_working_set:  # by the multi-generational LRU, reading a page again is no reason to keep it
        assert about(report, bill) == [set(), set()]
        return
    assert about(report, bill) == [{"working-set-page-cache"}] * 2
    assert [found.title for found in report.findings if found.title.endswith("that this process read")]


def test_page_cache_that_was_used_once_is_in_no_working_set(on_disk: Path) -> None:
    with charged("once", SIZE, on_disk) as one:
        report, bill = one.look()
        is_taken_back(one, SIZE)
    assert bill.bill.memory_current >= SIZE
    assert bill.bill.working_set is not None
    assert bill.bill.working_set <= 4 * SLACK
    assert about(report, bill) == [set(), set()]


def test_a_heap_is_no_page_cache_and_nothing_of_it_can_be_taken_back() -> None:
    with charged("anonymous", SIZE) as one:
        report, bill = one.look()
        (process,) = bill.processes
        assert abs(process.rss - rss(one.pid)) <= MB
    assert bill.bill.reclaimable is not None
    assert bill.bill.reclaimable <= 2 * SLACK
    assert bill.bill.unmapped is not None
    assert bill.bill.unmapped <= 2 * SLACK
    assert report.resident is not None
    assert report.resident.anonymous is not None
    assert abs((bill.bill.working_set or 0) - report.resident.anonymous) <= 2 * SLACK
    assert (process.go, process.name, process.cgroup) == (True, "charged", "")
    assert about(report, bill) == [set(), set()]


def test_files_in_memory_are_the_cgroups_and_in_no_rss_until_they_are_mapped(in_memory: Path) -> None:
    with charged("fresh", SIZE, in_memory) as one:
        report, bill = one.look()
    assert about(report, bill) == [{"cgroup-tmpfs"}] * 2
    assert abs(bill.bill.parts["shmem"] - SIZE) <= MB
    assert (bill.bill.reclaimable or 0) <= 2 * SLACK
    mapped = (build("mapped", RELEASE), "memfd", SIZE)
    with memory_cgroup(limit=400 * MB) as (directory, _), told(*joining(directory), *mapped) as (process, _):
        report, bill = look_at(process)[1], bill_of(process.pid)
    assert about(report, bill) == [set(), set()]
    assert "shared-memory" in {one.id for one in report.findings}


def test_full_pipes_are_memory_of_the_kernel() -> None:
    with charged("pipes", SIZE) as one:
        report, bill = one.look()
    assert about(report, bill) == [{"cgroup-kernel-memory"}] * 2
    assert bill.bill.parts["kernel"] >= SIZE


def test_the_memory_of_a_child_is_said_to_be_anothers_and_both_are_listed() -> None:
    with charged("child", SIZE) as one:
        report, bill = one.look()
        named = gomem("pod", "--format", "json", "--cgroup", one.directory)
        sizes = {process.pid: rss(process.pid) for process in bill.processes}
    assert about(report, bill) == [{"cgroup-other-processes"}, set()], "all of them are the cgroup's own"
    child, parent = bill.processes
    assert (parent.pid, child.go, parent.go) == (one.pid, True, True)
    assert child.anonymous is not None
    assert child.anonymous >= SIZE
    for process in bill.processes:
        assert abs(process.rss - sizes[process.pid]) <= MB
    assert (bill.sums.processes, bill.sums.go, bill.sums.rss) == (2, 2, child.rss + parent.rss)
    body = json.loads(named.stdout)
    validate(body, POD_FILE)
    assert body["path"] == bill.path == one.path
    assert {process["pid"] for process in body["processes"]} == set(sizes)


def test_a_pod_is_the_whole_pod_with_its_containers_in_it() -> None:
    with memory_cgroup(limit=600 * MB) as (top, version):
        inner = top / f"kubepods-pod{UID.replace('-', '_')}.slice" / ("c0ffee" * 10 + "abcd")
        try:
            for path in (inner.parent, inner):
                if version == 2:
                    (path.parent / "cgroup.subtree_control").write_text("+memory")
                path.mkdir()
            with told(*joining(inner), build("charged", RELEASE), "anonymous", 20 * MB) as (process, _):
                bill = bill_of(process.pid)
        finally:
            remove(inner)
            remove(inner.parent)
    whole = f"/{top.name}/{inner.parent.name}"
    assert (bill.pod, bill.path) == (UID, whole)
    assert [one.path for one in bill.below] == [f"{whole}/{inner.name}"]
    assert [(one.path, one.limit) for one in bill.above] == [(f"/{top.name}", 600 * MB)]
    assert (bill.bill.limit, bill.bill.limited_by) == (600 * MB, f"/{top.name}")
    assert [(one.pid, one.cgroup) for one in bill.processes] == [(process.pid, f"/{inner.name}")]


def test_processes_that_come_and_go_break_nothing() -> None:
    churn = "while :; do /bin/true & /bin/true; wait; done"
    with memory_cgroup() as (directory, _), running(*joining(directory), "/bin/sh", "-c", churn) as process:
        wait_until(lambda: str(process.pid) in (directory / "cgroup.procs").read_text().split(), "it has joined")
        for _ in range(10):
            assert process.pid in {one.pid for one in bill_of(process.pid).processes}


def test_in_a_cgroup_namespace_the_bill_is_that_of_its_root(tmp_path: Path) -> None:
    with charged("anonymous", 20 * MB) as one:
        kind = "cgroup -o memory" if one.version == 1 else "cgroup2"
        remount = f'mount -t {kind} none {tmp_path} && exec "$@"'
        inside = [*joining(one.directory), "unshare", "--cgroup", "--mount", "/bin/sh", "-c", remount, "sh"]
        done = gomem("pod", one.pid, under=inside)
        other = gomem("pod", one.pid, under=[*joining(one.directory), "unshare", "--cgroup"])
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("/  cgroup, cgroup v")
    assert str(one.pid) in done.stdout
    assert "it is not mounted where gomem runs" in other.refusal(1)


@pytest.mark.bpf
def test_bpf_maps_that_a_process_holds_are_counted_once_with_what_the_kernel_has_for_them() -> None:
    with memory_cgroup() as (directory, _), map_holder(entries=4096, value=1024) as maker:
        (directory / "cgroup.procs").write_text(str(maker))
        assert len([one for one in held_by(maker) if one[0] == "map_id"]) == 1
        maps = bill_of(maker).bpf_maps
    assert maps is not None
    assert maps.maps == 1
    assert 4 * MB <= maps.bytes <= 5 * MB


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--cgroup", "/no/such"), 1, "there is no memory cgroup /no/such"),
        (("--cgroup", "/../.."), 1, "there is no memory cgroup"),
        (("--cgroup", "/a", "1"), 2, "stands for the process"),
    ],
)
def test_what_is_no_cgroup_is_said(words: tuple[str, ...], status: int, said: str) -> None:
    assert said in gomem("pod", *words).refusal(status)
