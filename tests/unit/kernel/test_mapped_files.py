"""Mapped files, out of maps and smaps as the kernel writes them."""

from __future__ import annotations

import os

import numpy as np

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.kernel.mapped_files import data_in_ram, mapped_files
from gomem.tracer.kernel.maps import parse_maps
from gomem.tracer.kernel.residency import Page, classify
from gomem.tracer.kernel.smaps import parse_smaps

KB = 1024
MAPS = parse_maps(b"""10000-20000 r-xp 00000000 fe:00 26 /srv/program
20000-30000 rw-p 00010000 fe:00 26 /srv/program
30000-40000 rw-s 00000000 fe:00 27 /srv/data (deleted)
50000-60000 rw-s 00000000 00:01 28 /memfd:x (deleted)
60000-70000 rw-s 00000000 00:01 29 /dev/zero (deleted)
70000-80000 rw-s 00000000 00:30 30 /run/cache
80000-90000 rw-s 00000000 00:05 31 /dev/dri/card0
90000-a0000 rw-s 00000000 00:0f 32 /anon_hugepage (deleted)
a0000-b0000 rw-s 00000000 00:0e 33 anon_inode:[io_uring]
b0000-c0000 rw-p 00000000 00:00 0
""")
SMAPS = parse_smaps(b"""30000-40000 rw-s 00000000 fe:00 27 /srv/data (deleted)
Shared_Clean: 8 kB
Private_Clean: 12 kB
Private_Dirty: 16 kB
VmFlags: rd wr
""")


def test_each_file_is_told_with_what_is_behind_it() -> None:
    start = np.array([0x10000, 0x20000, 0x30000, 0x90000, 0xB0000], np.uint64)
    size = np.array([16, 8, 36, 64, 64], np.uint64) * np.uint64(KB)
    flags = np.array([Page.PRESENT | Page.FILE, Page.PRESENT, *[Page.PRESENT | Page.FILE] * 2, Page.PRESENT], np.uint8)
    huge = Ranges(np.array([0x90000], np.uint64), np.array([0xA0000], np.uint64))
    residency = classify(Ranges(start, start + size), flags, MAPS, huge, "pagemap", True)
    rows = {row.path: row for row in mapped_files(MAPS, residency, (os.makedev(0, 0x30),), SMAPS)}
    assert {path: row.backing for path, row in rows.items()} == {
        "/srv/program": "file", "/srv/data": "file", "/memfd:x": "memfd", "/dev/zero": "shared_anonymous",
        "/run/cache": "tmpfs", "/dev/dri/card0": "device", "/anon_hugepage": "hugetlb",
        "anon_inode:[io_uring]": "kernel",
    }  # fmt: skip
    program, data, reserved = rows["/srv/program"], rows["/srv/data"], rows["/anon_hugepage"]
    assert (program.mappings, program.resident, program.anonymous, program.executable) == (2, 24 * KB, 8 * KB, True)
    assert (data.deleted, data.clean, data.dirty, data.shared) == (True, 20 * KB, 16 * KB, 8 * KB)
    assert (reserved.resident, reserved.hugetlb) == (0, 64 * KB)
    # Programs are no data.
    assert data_in_ram(MAPS, residency) == 36 * KB
    assert mapped_files(parse_maps(b""), residency, (), None) == []
    assert data_in_ram(parse_maps(b""), residency) == 0
