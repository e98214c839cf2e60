from __future__ import annotations

import pytest
from msgspec.structs import replace

from gomem.tracer.kernel.file_pages import FilePages, pages_by_mapping, pages_by_sums
from gomem.tracer.kernel.maps import parse_maps
from gomem.tracer.kernel.smaps import parse_rollup, parse_smaps
from gomem.tracer.proc.small_files import parse_limits, parse_status

KB = 1024
ROLLUP = parse_rollup(
    b"[rollup]\nRss: 1000 kB\nShared_Clean: 100 kB\nShared_Dirty: 0 kB\nPrivate_Clean: 250 kB\nPrivate_Dirty: 650 kB\n"
    b"Anonymous: 600 kB\nLazyFree: 50 kB\nSwap: 0 kB\n"
)
STATUS = parse_status(b"RssShmem: 0 kB\nVmLck: 0 kB\nVmData: 7 kB\n")


def test_sums_tell_clean_and_dirty_pages_of_files_apart() -> None:
    # Of 400 kB of files 300 are clean: the lazily freed pages are clean too, and anonymous.
    assert pages_by_sums(ROLLUP, STATUS) == FilePages(300 * KB, 100 * KB, 0)


@pytest.mark.parametrize(
    "open_question",
    [
        (replace(ROLLUP, swap=4 * KB), STATUS),
        (ROLLUP, replace(STATUS, rss_shmem=4 * KB)),
        (ROLLUP, replace(STATUS, rss_shmem=None)),
        (ROLLUP, replace(STATUS, vm_lck=4 * KB)),
        (replace(ROLLUP, lazy_free=None), STATUS),
        (replace(ROLLUP, private_clean=800 * KB), STATUS),
    ],
)
def test_sums_that_leave_it_open_tell_nothing(open_question: tuple[object, object]) -> None:
    assert pages_by_sums(*open_question) is None  # type: ignore[arg-type]


MAPS = b"""1000-9000 r-xp 00000000 fe:00 26 /srv/program
10000-20000 rw-p 00000000 fe:00 27 /srv/private
20000-30000 rw-s 00000000 fe:00 28 /srv/shared
30000-40000 rw-s 00000000 00:01 29 /memfd:x (deleted)
40000-50000 r--s 00000000 fe:00 30 /srv/locked
50000-60000 rw-p 00000000 00:00 0\x20
"""
SMAPS = b"""1000-9000 r-xp 00000000 fe:00 26 /srv/program
Shared_Clean: 8 kB
Private_Clean: 12 kB
VmFlags: rd ex
10000-20000 rw-p 00000000 fe:00 27 /srv/private
Private_Clean: 8 kB
Private_Dirty: 32 kB
Anonymous: 36 kB
LazyFree: 4 kB
VmFlags: rd wr
20000-30000 rw-s 00000000 fe:00 28 /srv/shared
Private_Clean: 4 kB
Shared_Dirty: 16 kB
Private_Dirty: 20 kB
VmFlags: rd wr sh
30000-40000 rw-s 00000000 00:01 29 /memfd:x (deleted)
Private_Dirty: 64 kB
VmFlags: rd wr sh
40000-50000 r--s 00000000 fe:00 30 /srv/locked
Private_Clean: 60 kB
Private_Dirty: 4 kB
VmFlags: rd sh lo
50000-60000 rw-p 00000000 00:00 0\x20
Private_Dirty: 64 kB
Anonymous: 64 kB
VmFlags: rd wr
"""


def test_mappings_tell_them_apart_beside_shared_memory_and_what_is_locked() -> None:
    pages = pages_by_mapping(parse_smaps(SMAPS), parse_maps(MAPS), (1,))
    assert pages == FilePages(clean=(20 + 4 + 4) * KB, dirty=36 * KB, locked=64 * KB)


def test_limits_are_soft_limits_by_name() -> None:
    limits = parse_limits(
        b"Limit                     Soft Limit           Hard Limit           Units     \n"
        b"Max cpu time              unlimited            unlimited            seconds   \n"
        b"Max address space         512000000            unlimited            bytes     \n"
        b"Max data size             garbage              unlimited            bytes     \n"
        b"\xff\n"
    )
    assert limits == {"Max cpu time": None, "Max address space": 512000000}
    assert (STATUS.vm_lck, STATUS.vm_data) == (0, 7 * KB)
