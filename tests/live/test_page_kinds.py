"""What is said of pages of files and of shared memory, against smaps, and against what the kernel does when it is asked
to take them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.exporters.verdict import verdict
from gomem.tracer.report import Report
from gomem.tracer.snapshot.inspection import Snapshot
from tests.support.builds import build
from tests.support.processes import rss
from tests.support.seen import findings, look_at, told

MB, PAGE = 1 << 20, 4096
SIZE = 128 * MB
PROCESS_MADVISE, MADV_PAGEOUT = 440, 21
KINDS = ("shm", "memfd", "anonshared", "private", "dirty", "clean", "lockedfile")


@contextmanager
def holding(kind: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    path = Path("/dev/shm" if kind == "shm" else directory) / f"gomem-mapped-{os.getpid()}"
    try:
        with told(build("mapped", "1.25.5"), kind, SIZE, path) as (process, _):
            yield process
    finally:
        path.unlink(missing_ok=True)


@pytest.fixture(params=KINDS)
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int, Snapshot, Report]]:
    with holding(request.param, tmp_path) as process:
        look, report = look_at(process)
        yield request.param, process.pid, look, report


def smaps(pid: int, look: Snapshot) -> dict[str, dict[str, int]]:
    """Add up the kernel's own figures by what a mapping is of, bytes."""
    sums: dict[str, dict[str, int]] = {}
    shmem = {os.stat("/dev/shm").st_dev, *look.kernel.shmem_devices}
    row: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            major, minor = (int(number, 16) for number in words[3].split(":"))
            of = "anonymous" if words[4] == "0" else "shmem" if os.makedev(major, minor) in shmem else "file"
            row = sums.setdefault(of, {})
        elif words[-1] == "kB":
            row[words[0][:-1]] = row.get(words[0][:-1], 0) + int(words[1]) * 1024
    return sums


def place(pid: int) -> tuple[int, int]:
    """Return where the mapping of SIZE bytes is."""
    words = (line.split()[0].split("-") for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    return next((int(low, 16), int(high, 16)) for low, high in words if int(high, 16) - int(low, 16) == SIZE)


def kept_after_pageout(pid: int, *, anonymous: bool) -> int:
    """Ask the kernel to take the mapping's pages; return how many bytes of them it has kept in RAM.

    What is in RAM of a file or of shared memory is what mincore(2) says of it, mapped or not.
    """
    (start, end), before, pidfd = place(pid), rss(pid), os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        vector = (ctypes.c_size_t * 2)(start, SIZE)
        done = libc.syscall(PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, MADV_PAGEOUT, 0)
        # Locked mappings are refused.
        assert done > 0 or ctypes.get_errno() == errno.EINVAL
    finally:
        os.close(pidfd)
    if anonymous:
        return SIZE - (before - rss(pid))
    in_ram = (ctypes.c_ubyte * (SIZE // PAGE))()
    with open(f"/proc/{pid}/map_files/{start:x}-{end:x}", "r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        anchor = ctypes.c_char.from_buffer(mapped)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(SIZE), in_ram) == 0
        del anchor
    return sum(page & 1 for page in in_ram) * PAGE


def test_the_figures_are_those_of_smaps(seen: tuple[str, int, Snapshot, Report]) -> None:
    kind, pid, look, report = seen
    sums = smaps(pid, look)
    assert report.resident is not None
    resident = report.resident
    file, shmem = sums["file"], sums.get("shmem", {})
    # Written or not, what a private mapping has copied is anonymous.
    pages = file["Rss"] - file["Anonymous"]
    vdso = 8192  # pages of the kernel's own, which are of a file for the counters, and have no inode
    assert abs((resident.file or 0) - pages) <= vdso
    assert resident.shmem == shmem.get("Rss", 0) - shmem.get("Anonymous", 0)
    told_parts = (resident.file_clean, resident.file_dirty, resident.file_locked)
    assert None not in told_parts
    assert abs(sum(part or 0 for part in told_parts) - (resident.file or 0)) <= vdso
    locked = SIZE if kind == "lockedfile" else 0
    dirty = file["Shared_Dirty"] + file["Private_Dirty"] - file["Anonymous"]
    assert resident.file_locked == locked
    assert abs((resident.file_dirty or 0) - dirty) <= vdso
    rows = {row.kind: row for row in report.kinds or ()}
    assert rows["file"].anonymous == (SIZE if kind == "private" else 0)
    assert rows["file"].shmem == (SIZE if kind in ("shm", "memfd", "anonshared") else 0)
    assert sum(row.anonymous or 0 for row in rows.values()) == resident.anonymous


WORDS = {
    "shm": ("shared-memory", "shared memory, which the kernel cannot drop"),
    "memfd": ("shared-memory", "shared memory, which the kernel cannot drop"),
    "anonshared": ("shared-memory", "shared memory, which the kernel cannot drop"),
    "private": ("copied-file-pages", "private copies of file pages, which the kernel cannot drop"),
    "dirty": ("dirty-file-pages", "changed pages of files, which the kernel can drop only after writing them"),
    "clean": ("file-pages", "clean pages of files (text, libraries, data), which the kernel can drop"),
    "lockedfile": ("locked-file-pages", "locked pages of files, which the kernel cannot drop"),
}


def test_each_is_said_once_and_what_cannot_be_dropped_is_not_called_droppable(
    seen: tuple[str, int, Snapshot, Report],
) -> None:
    kind, pid, _, report = seen
    finding, words = WORDS[kind]
    assert f"is {words}" in verdict(report)
    told_ids = set(findings(report)) & {one for one, _ in WORDS.values()}
    assert told_ids == {finding}
    # The kernel's own answer. What it does with dirty pages depends on its release; swap takes what else could not go.
    kept = kept_after_pageout(pid, anonymous=kind == "private")
    if kind == "clean":
        assert kept < SIZE * 0.1
    elif kind != "dirty" and not has_swap():
        assert kept > SIZE * 0.9


def has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


# What is behind the mapping of each kind; and what the kernel can do with its pages.
BACKINGS = {"shm": "tmpfs", "memfd": "memfd", "anonshared": "shared_anonymous"}


def test_the_file_is_named_with_what_smaps_has_of_it(seen: tuple[str, int, Snapshot, Report]) -> None:
    kind, pid, _, report = seen
    start, end = place(pid)
    of: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().partition(f"{start:08x}-{end:08x} ")[2].splitlines()[1:]:
        words = line.split()
        if words[-1] != "kB":
            break
        of[words[0][:-1]] = int(words[1]) * 1024
    assert report.files is not None
    row = next(row for row in report.files if row.virtual == SIZE)
    assert row.backing == BACKINGS.get(kind, "file")
    assert row.resident == of["Rss"]
    assert row.anonymous == of["Anonymous"]
    assert row.shared == of["Shared_Clean"] + of["Shared_Dirty"]
    assert (row.clean or 0) + (row.dirty or 0) == of["Rss"] - of["Anonymous"]
    assert not row.executable
    assert "deleted-file" not in findings(report)
    if kind in ("shm", "private", "dirty"):
        found = {"shm": "shared-memory", "private": "copied-file-pages", "dirty": "dirty-file-pages"}[kind]
        # The disk may have been faster.
        if found in findings(report):
            assert f"{row.path[-100:]} has" in findings(report)[found].explanation


def test_a_file_that_was_deleted_is_said_to_be_on_its_disk_still(tmp_path: Path) -> None:
    with holding("clean", tmp_path) as process:
        next(tmp_path.iterdir()).unlink()
        _, report = look_at(process)
    row = next(row for row in report.files or () if row.virtual == SIZE)
    assert (row.deleted, row.backing) == (True, "file")
    assert row.path.startswith(str(tmp_path))
    assert "deleted-file" in findings(report)
