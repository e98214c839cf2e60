"""Reading which OS pages of a process are resident: PAGEMAP_SCAN, else /proc/PID/pagemap, else smaps.

Source: Documentation/admin-guide/mm/pagemap.rst, include/uapi/linux/fs.h, fs/proc/task_mmu.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from contextlib import suppress
from functools import cache
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, addresses, bytes_in, intersect, normalise
from gomem.tracer.errors import BackendUnavailable, NotPermitted, SnapshotError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Method, Page, Residency, classify
from gomem.tracer.kernel.smaps import Smaps, read_smaps
from gomem.tracer.machine.rights import newer_kernel
from gomem.tracer.machine.room import Room, room_for_one
from gomem.tracer.process.target import Target

_PAGE = os.sysconf("SC_PAGESIZE")
# Ranges that gomem is ready to hold (24 bytes each): a hostile target could make one of every second page.
MAX_RANGES = 8 << 20
# What we hold of one: the kernel's words, the columns made of them, and what they are while they are joined.
_RANGE_HELD = 128

# include/uapi/linux/fs.h, Linux 6.7; PAGE_IS_GUARD since 6.15
PAGEMAP_SCAN = 0xC0606610
SCAN_SINCE = (6, 7)
_SCAN_ARG = struct.Struct("=12Q")
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_PFNZERO, _IS_HUGE = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
_IS_GUARD = 1 << 8
_REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])
_BATCH = 1 << 15
# The kernel holds the target's mmap_lock during one call, which delays its mmap and munmap. Walking 1 GB of small
# pages took 14 ms here: 64 MB, below a millisecond, is enough for one call, and the whole takes no longer.
_PAGES_PER_CALL = 1 << 14

_ENTRY_PRESENT, _ENTRY_SWAPPED, _ENTRY_FILE = 1 << 63, 1 << 62, 1 << 61
_ENTRY_EXCLUSIVE = 1 << 56
_ENTRY_GUARD = 1 << 58  # since 6.15; always 0 before
_ENTRY_PFN = (1 << 55) - 1
_ENTRIES_PER_READ = 1 << 18

Found = tuple[Ranges, NDArray[np.uint8]]


class _TooManyRanges(Exception):
    """The resident pages are too scattered to be kept as ranges."""


def read_residency(target: Target, mappings: Mappings, method: Literal["auto"] | Method = "auto") -> Residency:
    """Read what of `mappings` is in RAM or in swap, by the best method that works, or by the one named.

    Raises TargetGone, NotPermitted (no method is allowed), BackendUnavailable (this kernel lacks the method named).
    """
    if len(mappings) == 0:
        nothing = normalise([], [])
        return classify(nothing, np.zeros(0, np.uint8), mappings, nothing, "pagemap_scan", exact=True)
    if method == "pagemap_scan":
        return _by_scan(target, mappings)
    if method == "pagemap":
        return _by_pagemap(target, mappings)
    if method == "smaps":
        return _by_smaps(target, mappings)
    denied = False
    for read in (_by_scan, _by_pagemap):
        try:
            return read(target, mappings)
        except (BackendUnavailable, NotPermitted) as error:
            denied = isinstance(error, NotPermitted)
        except _TooManyRanges:
            break  # they are as many for the other
    return replace(_by_smaps(target, mappings), denied=denied)


def _by_scan(target: Target, mappings: Mappings) -> Residency:
    fd = _open_pagemap(target)
    try:
        found, flags = scan(fd, int(mappings.start[0]), int(mappings.end[-1]))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
            raise BackendUnavailable("this kernel has no PAGEMAP_SCAN", newer_kernel(SCAN_SINCE)) from None
        raise target.explain(error, "pagemap") from None
    finally:
        os.close(fd)
    return classify(found, flags, mappings, _hugetlb(target), "pagemap_scan", exact=True)


def scan(fd: int, start: int, end: int) -> Found:
    """Return the present and swapped ranges in [start, end) of the open pagemap `fd` by PAGEMAP_SCAN.

    Raises OSError (ENOTTY, EINVAL: no such ioctl here).
    """
    batches: list[NDArray[np.void]] = []
    count, room = 0, room_for_one()
    vector = np.zeros(_BATCH, dtype=_REGION)
    wanted = _IS_FILE | _IS_PRESENT | _IS_SWAPPED | _IS_PFNZERO | _IS_HUGE | (_IS_GUARD if _knows_guard() else 0)
    while start < end:
        filled, walk_end = _scan_once(fd, start, end, vector, wanted)
        batch = vector[:filled].copy()
        batches.append(batch)
        count += filled
        _take(room, filled, count)
        pages = int(np.sum(batch["end"] - batch["start"])) // _PAGE
        if filled < len(vector) and pages < _PAGES_PER_CALL:
            break
        # do_pagemap_scan() walks in steps, and forgets to move walk_end on when the last step comes to the end
        # (seen on 6.18): going on from there would give the same ranges again.
        walked = max(walk_end, int(batch["end"][-1]))
        if walked <= start:
            break
        start = walked
    regions = np.concatenate(batches) if batches else vector[:0]
    regions = regions[regions["categories"] & _IS_GUARD == 0]
    return Ranges(addresses(regions["start"]), addresses(regions["end"])), _flags_of(regions["categories"])


def _take(room: Room, more: int, count: int) -> None:
    try:
        room.take(more, _RANGE_HELD, "ranges of pages")
    except SnapshotError:
        raise _TooManyRanges from None
    if count > MAX_RANGES:
        raise _TooManyRanges


def _scan_once(fd: int, start: int, end: int, vector: NDArray[np.void], wanted: int) -> tuple[int, int]:
    """One ioctl: return how many regions it wrote into `vector`, and the address that it came to."""
    argument = bytearray(
        _SCAN_ARG.pack(
            _SCAN_ARG.size, 0, start, end, 0, vector.ctypes.data, len(vector), _PAGES_PER_CALL,
            0, 0, _IS_PRESENT | _IS_SWAPPED, wanted,
        )
    )  # fmt: skip
    filled = fcntl.ioctl(fd, PAGEMAP_SCAN, argument, True)
    return filled, int(_SCAN_ARG.unpack(argument)[4])


def _flags_of(categories: NDArray[np.uint64]) -> NDArray[np.uint8]:
    flags = np.zeros(len(categories), dtype=np.uint8)
    for bit, page in (
        (_IS_PRESENT, Page.PRESENT), (_IS_SWAPPED, Page.SWAPPED), (_IS_FILE, Page.FILE),
        (_IS_HUGE, Page.HUGE), (_IS_PFNZERO, Page.ZERO),
    ):  # fmt: skip
        flags[categories & np.uint64(bit) != 0] |= np.uint8(page)
    return flags


@cache
def _knows_guard() -> bool:
    """Whether this kernel tells guard pages (MADV_GUARD_INSTALL) from swapped ones; tried on ourselves."""
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _scan_once(fd, 0, _PAGE, np.zeros(1, dtype=_REGION), _IS_PRESENT | _IS_GUARD)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _by_pagemap(target: Target, mappings: Mappings) -> Residency:
    fd = _open_pagemap(target)
    try:
        found, flags, exact = read_entries(fd, _worth_reading(target, mappings))
    except OSError as error:
        raise target.explain(error, "pagemap") from None
    finally:
        os.close(fd)
    return classify(found, flags, mappings, _hugetlb(target), "pagemap", exact)


def _worth_reading(target: Target, mappings: Mappings) -> Ranges:
    """Leave out the mappings without any resident page where there is so much address space that it pays."""
    everything = mappings.ranges()
    if everything.bytes < 4 << 30:
        return everything
    smaps = read_smaps(target)
    used = (smaps.column("Rss") + smaps.column("Swap") > 0) | smaps.hugetlb | smaps.special
    return intersect(everything, normalise(smaps.start[used], smaps.end[used]))


def read_entries(fd: int, ranges: Ranges) -> tuple[Ranges, NDArray[np.uint8], bool]:
    """Return the present and swapped ranges within `ranges`, read entry by entry from the open pagemap `fd`.

    The last value is false where zero pages could not be told from others: without CAP_SYS_ADMIN the kernel
    hides page frame numbers.
    """
    starts: list[NDArray[np.uint64]] = []
    ends: list[NDArray[np.uint64]] = []
    flags: list[NDArray[np.uint8]] = []
    buffer = np.zeros(_ENTRIES_PER_READ, dtype="<u8")
    exact, count, room = True, 0, room_for_one()
    for low, high in zip(ranges.start.tolist(), ranges.end.tolist(), strict=True):
        while low < high:
            wanted = min((high - low) // _PAGE, _ENTRIES_PER_READ)
            got = os.preadv(fd, [buffer[:wanted].view(np.uint8).data], low // _PAGE * 8) // 8
            if got <= 0:
                break
            if buffer[:got].any():
                codes, sure = _codes_of(buffer[:got])
                first, last, code = _runs(codes)
                starts.append(np.uint64(low) + first * np.uint64(_PAGE))
                ends.append(np.uint64(low) + last * np.uint64(_PAGE))
                flags.append(code)
                exact = exact and sure
                count += len(code)
                _take(room, len(code), count)
            low += got * _PAGE
    if not starts:
        return normalise([], []), np.zeros(0, np.uint8), exact
    return Ranges(np.concatenate(starts), np.concatenate(ends)), np.concatenate(flags), exact


def own_pages(target: Target, ranges: Ranges) -> Ranges:
    """Return the pages within `ranges` that are the process's alone, in RAM or in swap, and no file's any more.

    Reading those waits for no file system. Raises TargetGone, NotPermitted, BackendUnavailable.
    """
    fd = _open_pagemap(target)
    try:
        found, flags, _ = read_entries(fd, ranges)
    except OSError as error:
        raise target.explain(error, "pagemap") from None
    finally:
        os.close(fd)
    own = flags & Page.FILE == 0
    return normalise(found.start[own], found.end[own])


def _codes_of(entries: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], bool]:
    """Return the Page bits of each entry, and whether zero pages could be told."""
    codes = np.zeros(len(entries), dtype=np.uint8)
    for bit, page in (
        (_ENTRY_PRESENT, Page.PRESENT), (_ENTRY_SWAPPED, Page.SWAPPED), (_ENTRY_FILE, Page.FILE),
    ):  # fmt: skip
        codes[entries & np.uint64(bit) != 0] |= np.uint8(page)
    guard = entries & np.uint64(_ENTRY_GUARD) != 0
    codes[guard | (codes & (Page.PRESENT | Page.SWAPPED) == 0)] = 0
    shared = (codes & Page.PRESENT != 0) & (entries & np.uint64(_ENTRY_EXCLUSIVE) == 0)
    zero = zero_frames()
    if len(zero):
        frames = entries & np.uint64(_ENTRY_PFN)
        codes[shared & (bytes_in(zero, frames, frames + np.uint64(1)) > 0)] |= np.uint8(Page.ZERO)
        return codes, True
    # Not a file's and not anybody's own: a zero page, or an anonymous page that a fork shares.
    return codes, not (shared & (codes & Page.FILE == 0)).any()


def _runs(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8]]:
    """Return (first, behind last, code) of every run of equal non-zero codes."""
    borders = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    first = np.concatenate((np.zeros(1, dtype=np.intp), borders))
    last = np.concatenate((borders, np.full(1, len(codes), dtype=np.intp)))
    keep = codes[first] != 0
    return first[keep].astype(np.uint64), last[keep].astype(np.uint64), codes[first[keep]]


@cache
def zero_frames() -> Ranges:
    """Return the frame numbers of the zero page and of the huge zero page; empty where the kernel hides them.

    Found by reading memory of our own that was never written.
    """
    frames = _PAGE // 8 * _PAGE  # bytes that one page of page table maps: a huge page
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, 4 * frames, flags=mmap.MAP_PRIVATE) as untouched:
            # Only ctypes tells where a mmap object lies; it must let go of it before the mapping is closed.
            anchor = ctypes.c_char.from_buffer(untouched)
            base = ctypes.addressof(anchor)
            del anchor
            with suppress(OSError):  # a kernel without huge pages
                # Some give huge pages unasked, and since Linux 6.7 place memory of this size so that they can.
                untouched.madvise(mmap.MADV_NOHUGEPAGE, 0, 2 * frames)
                untouched.madvise(mmap.MADV_HUGEPAGE, 2 * frames, 2 * frames)
            small, huge = (_frame_of(fd, untouched, base, offset) for offset in (0, 2 * frames + -base % frames))
    except OSError:
        return normalise([], [])
    finally:
        os.close(fd)
    is_huge = huge != small and huge % (frames // _PAGE) == 0
    known = [(small, 1), (huge, frames // _PAGE if is_huge else 1)]
    return normalise([first for first, _ in known if first], [first + count for first, count in known if first])


def _frame_of(fd: int, memory: mmap.mmap, base: int, offset: int) -> int:
    if memory[offset] != 0:
        raise OSError(errno.EIO, "fresh memory is not zero")
    entry = int.from_bytes(os.pread(fd, 8, (base + offset) // _PAGE * 8), "little")
    return entry & _ENTRY_PFN


def _by_smaps(target: Target, mappings: Mappings) -> Residency:
    smaps = read_smaps(target)
    keep = smaps.column("Rss") + smaps.column("Swap") > 0
    ranges = Ranges(smaps.start[keep], smaps.end[keep])
    rss, swap = smaps.column("Rss")[keep], smaps.column("Swap")[keep]
    known = mappings.find(ranges.start) >= 0
    flags = (rss > 0) * np.uint8(Page.PRESENT) | (swap > 0) * np.uint8(Page.SWAPPED)
    return Residency(
        ranges=Ranges(ranges.start[known], ranges.end[known]),
        flags=flags[known].astype(np.uint8),
        rss=rss[known],
        swap=swap[known],
        method="smaps",
        exact=False,
        unmapped_bytes=int(np.sum(rss[~known])),
    )


def _open_pagemap(target: Target) -> int:
    try:
        return target.open_file("pagemap")
    except FileNotFoundError:
        raise BackendUnavailable("this kernel has no /proc/PID/pagemap", "needs CONFIG_PROC_PAGE_MONITOR") from None


def _hugetlb(target: Target) -> Ranges:
    """Return the mappings of reserved huge pages; the slow full smaps is read only if there are any."""
    if not target.status().hugetlb:
        return normalise([], [])
    smaps: Smaps = read_smaps(target)
    return normalise(smaps.start[smaps.hugetlb], smaps.end[smaps.hugetlb])
