"""Mapped files by path: the mappings of each, with what of them is in RAM. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import bytes_in
from gomem.tracer.kernel.file_pages import pages_of_mappings
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.kernel.smaps import Smaps
from gomem.tracer.report import FileBacking, MappedFile

MOST_ROWS = 20
# As much of files beside programs and libraries is worth a look into smaps.
WORTH_SMAPS = 16 << 20
_DELETED = " (deleted)"
# How the kernel calls what has no path of a file system: mm/shmem.c, mm/memfd.c, ipc/shm.c, fs/hugetlbfs/inode.c,
# fs/anon_inodes.c and net/socket.c.
_BACKINGS: tuple[tuple[str, FileBacking], ...] = (
    ("/memfd:", "memfd"),
    ("/dev/zero" + _DELETED, "shared_anonymous"),
    ("/SYSV", "sysv"),
    ("/anon_hugepage", "hugetlb"),
    ("/dev/hugepages/", "hugetlb"),
    ("/dev/shm/", "tmpfs"),
    ("/dev/", "device"),
    ("anon_inode:", "kernel"),
    ("socket:", "kernel"),
)

_Bytes = NDArray[np.int64]


def data_in_ram(mappings: Mappings, residency: Residency) -> int:
    """Return the bytes in RAM that are mapped of files which are no programs and no libraries."""
    group, of = _groups(mappings)
    program = np.zeros(len(of) and int(group.max()) + 1, np.bool_)
    program[group[mappings.executable[of]]] = True
    data = of[~program[group]]
    return int(residency.rss_in(mappings.start[data], mappings.end[data]).sum())


def mapped_files(
    mappings: Mappings, residency: Residency, shmem_devices: tuple[int, ...], smaps: Smaps | None
) -> list[MappedFile]:
    """Return the files of which most is in RAM, those first. `smaps`: of the same moment, None if it was not read."""
    group, of = _groups(mappings)
    if not len(of):
        return []
    count = int(group.max()) + 1
    start, end = mappings.start[of], mappings.end[of]
    huge = residency.flags & (Page.HUGETLB | Page.PRESENT) == Page.HUGETLB | Page.PRESENT
    reserved = bytes_in(residency.only(huge), start, end)

    def total(each: NDArray[np.uint64] | _Bytes, groups: NDArray[np.intp] = group) -> list[int]:
        sums = np.zeros(count, np.int64)
        np.add.at(sums, groups, each.astype(np.int64))
        return list(map(int, sums))

    resident, swap = residency.rss_in(start, end), residency.swap_in(start, end)
    known = residency.method != "smaps"
    copies = total(resident - np.minimum(residency.file_in(start, end), resident)) if known else None
    clean = dirty = shared = None
    if smaps is not None:
        where = _group_of(mappings.find(smaps.start), of, group, len(mappings))
        mine = where >= 0
        of_file = [column[mine] for column in (*pages_of_mappings(smaps), _shared(smaps))]
        clean, dirty, shared = (total(column, where[mine]) for column in of_file)
    columns = total(end - start), total(resident), total(swap), total(reserved)
    mapped = total(np.ones(len(of), np.int64))
    programs = total(mappings.executable[of].astype(np.int64))
    first = of[np.unique(group, return_index=True)[1]]
    rows = []
    for at in sorted(range(count), key=lambda at: (-columns[1][at] - columns[3][at], -columns[0][at]))[:MOST_ROWS]:
        name = mappings.name[first[at]]
        virtual, in_ram, swapped, huge_pages = (column[at] for column in columns)
        rows.append(
            MappedFile(
                path=name.removesuffix(_DELETED),
                deleted=name.endswith(_DELETED),
                backing=_backing(name, int(mappings.device[first[at]]) in shmem_devices, huge_pages),
                executable=programs[at] > 0,
                mappings=mapped[at],
                virtual=virtual,
                resident=in_ram,
                anonymous=copies[at] if copies else None,
                swap=swapped,
                hugetlb=huge_pages,
                clean=clean[at] if clean else None,
                dirty=dirty[at] if dirty else None,
                shared=shared[at] if shared else None,
            )
        )
    return rows


def _groups(mappings: Mappings) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the number of its file for each mapping of one, and which mappings those are."""
    of = np.flatnonzero(mappings.inode != 0)
    if not len(of):
        return np.zeros(0, np.intp), of
    keys = np.stack((mappings.device[of], mappings.inode[of]), axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1), of


def _group_of(mapping: NDArray[np.intp], of: NDArray[np.intp], group: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return the file's number for each of `mapping`, -1 where it is of none."""
    number = np.full(count + 1, -1, np.intp)
    number[of] = group
    return number[mapping]  # -1: the last, which is of none


def _shared(smaps: Smaps) -> _Bytes:
    total: _Bytes = (smaps.column("Shared_Clean") + smaps.column("Shared_Dirty")).astype(np.int64)
    return total


def _backing(name: str, of_tmpfs: bool, hugetlb: int) -> FileBacking:
    if hugetlb:
        return "hugetlb"
    known = next((backing for prefix, backing in _BACKINGS if name.startswith(prefix)), None)
    return known or ("tmpfs" if of_tmpfs else "file")
