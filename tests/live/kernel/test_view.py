from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.tracer.errors import TargetGone
from gomem.tracer.kernel.cgroup import memory_membership, read_memory_cgroup
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.kernel.view import read_kernel_view
from gomem.tracer.process.target import Target
from tests.support.builds import build, built
from tests.support.occupant import occupant
from tests.support.parked import parked
from tests.support.processes import running
from tests.support.toolchains import RELEASES

CONTAINER = "c0ffee" * 10 + "abcd"


@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[-1]])
def test_both_sums_fit_on_a_parked_go_program(release: str) -> None:
    with parked(built("parked", release)) as process, Target.open(process.pid) as target:
        view = read_kernel_view(target)
        status = target.status()
    assert (view.virtual_skew, view.resident_skew, view.limits) == (0, 0, [])
    assert view.mappings.virtual_bytes == view.vm_size == status.vm_size
    assert view.rollup is not None
    assert view.residency.rss_bytes == view.rollup.rss
    assert int(view.residency.rss_in(view.mappings.start, view.mappings.end).sum()) == view.rollup.rss
    resident = view.resident()
    assert resident.anonymous == view.rollup.anonymous
    assert resident.total == (resident.anonymous or 0) + (resident.file or 0) + (resident.shmem or 0)
    assert view.residency.unmapped_bytes == 0


def test_where_a_heap_would_begin_is_what_brk_says_before_it_was_ever_moved() -> None:
    with running(build("mappings", "1.27.3")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with Target.open(process.pid) as target:
            view = read_kernel_view(target)
        process.stdin.write(b"\n")
        process.stdin.flush()
        said = [json.loads(line) for line in iter(process.stdout.readline, b"\n")]
    assert "[heap]" not in view.mappings.name
    assert view.start_break == next(call["result"] for call in said if call["name"] == "brk") > 0
    with Target.open(os.getpid()) as target:
        view = read_kernel_view(target)
    assert view.start_break == int(view.mappings.start[view.mappings.name.index("[heap]")])


def test_a_process_that_maps_and_unmaps_all_the_time_is_read_with_its_skew() -> None:
    script = (
        "import mmap, random\nprint(flush=True)\nkept = []\n"
        "while True:\n"
        "    kept.append(mmap.mmap(-1, 4096 * random.randrange(1, 50), flags=mmap.MAP_PRIVATE))\n"
        "    if len(kept) > 2000: kept.pop(random.randrange(2000)).close()\n"
    )
    with subprocess.Popen(["/usr/bin/env", "python3", "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.2)
            with Target.open(process.pid) as target:
                for _ in range(20):
                    read = read_mappings(target)
                    mappings = read.mappings
                    assert (mappings.start[1:] >= mappings.end[:-1]).all()
                    assert read.skew_bytes == abs(mappings.virtual_bytes - read.vm_size)
                    assert read.attempts <= 5
                view = read_kernel_view(target)
        finally:
            process.kill()
    assert view.attempts <= 3
    assert int(view.residency.rss_in(view.mappings.start, view.mappings.end).sum()) == view.residency.rss_bytes


def test_a_target_that_exits_is_gone_and_not_an_empty_view() -> None:
    with occupant("touched") as process, Target.open(process.pid) as target:
        process.process.kill()
        process.process.wait()
        with pytest.raises(TargetGone):
            read_kernel_view(target)


@pytest.fixture
def limited_cgroup() -> Iterator[tuple[Path, Path]]:
    """A cgroup limited to 300 MB and below it one named like a container's; (parent, child)."""
    membership = memory_membership(Path("/proc/self/cgroup").read_text())
    roots = {1: Path("/sys/fs/cgroup/memory"), 2: Path("/sys/fs/cgroup")}
    if membership is None:
        pytest.skip("this kernel has no memory cgroups")
    parent = roots[membership.version] / f"gomem-test-{os.getpid()}"
    child = parent / f"docker-{CONTAINER}.scope"
    limit = {1: "memory.limit_in_bytes", 2: "memory.max"}[membership.version]
    try:
        parent.mkdir()
        (parent / limit).write_text(str(300 << 20))
        if membership.version == 2:
            (parent / "cgroup.subtree_control").write_text("+memory")
        child.mkdir()
    except OSError as error:
        if parent.is_dir():
            parent.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    yield parent, child
    for directory in (child, parent):
        for _ in range(100):
            try:
                directory.rmdir()
                break
            except OSError:  # the kernel is still taking the process out
                time.sleep(0.02)


def test_the_limit_of_the_parent_cgroup_is_seen_and_the_container_named(limited_cgroup: tuple[Path, Path]) -> None:
    parent, child = limited_cgroup
    with occupant("touched") as process:
        (child / "cgroup.procs").write_text(str(process.pid))
        with Target.open(process.pid) as target:
            found = read_memory_cgroup(target)
            assert target.container_id == CONTAINER
            view = read_kernel_view(target)
    assert found is not None
    assert found.cgroup.path.endswith(f"/{parent.name}/{child.name}")
    assert found.charged == found.cgroup.path
    assert found.cgroup.memory_max is None
    assert found.cgroup.memory_current is not None
    assert found.cgroup.oom_kill == 0
    assert found.effective_max == 300 << 20
    assert found.limited_by is not None
    assert found.limited_by.endswith(parent.name)
    assert view.cgroup is not None
    assert view.cgroup.effective_max == 300 << 20
