"""Which resident pages the kernel could drop: those of files, clean, and not locked; never shared memory.

Shared memory (tmpfs, memfd, MAP_SHARED|MAP_ANONYMOUS) has pages of "files" too, but no disk behind them. Sources:
smaps_account() in fs/proc/task_mmu.c, shrink_folio_list() in mm/vmscan.c.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import TargetError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.smaps import Rollup, Smaps
from gomem.tracer.proc.mounts import parse_mountinfo
from gomem.tracer.proc.small_files import Status
from gomem.tracer.process.target import Target

_SHMEM_FILE_SYSTEMS = ("tmpfs", "devtmpfs")
# The full smaps costs a walk of the page tables and 15 us a mapping here: it is read where the sums leave the answer
# open, and then only if there is something to ask about, or it is cheap.
_WORTH_A_WALK = 16 << 20
_CHEAP_MAPPINGS, _CHEAP_RSS = 1000, 1 << 30
MOST_MAPPINGS = 10_000
_MOST_MOUNTINFO = 4 << 20


class FilePages(Struct, frozen=True):
    """Resident bytes of files, without shared memory: `clean` ones can be dropped, `dirty` ones once they are written.

    `locked` ones (mlock) cannot, clean or dirty, and are in neither.
    """

    clean: int
    dirty: int
    locked: int


def pages_by_sums(rollup: Rollup, status: Status) -> FilePages | None:
    """Return the pages as the sums of all mappings tell them, None where those leave it open.

    If there is neither shared memory nor swap, clean pages are those of files and lazily freed ones: all other
    anonymous pages are dirty.
    """
    told = (rollup.rss, rollup.anonymous, rollup.shared_clean, rollup.private_clean, rollup.lazy_free)
    if None in told or status.rss_shmem != 0 or status.vm_lck != 0 or rollup.swap != 0:
        return None
    rss, anonymous, shared, private, lazy = (figure or 0 for figure in told)
    file, clean = rss - anonymous, shared + private - lazy
    return FilePages(clean, file - clean, 0) if 0 <= clean <= file else None


def pages_by_mapping(smaps: Smaps, mappings: Mappings, shmem_devices: tuple[int, ...]) -> FilePages:
    """Return the pages as the mappings of files tell them one by one; `mappings` say which these are."""
    index = mappings.find(smaps.start)
    of_file = (index >= 0) & (mappings.inode[index] != 0) & ~np.isin(mappings.device[index], shmem_devices)
    clean, dirty = pages_of_mappings(smaps)
    free = of_file & ~smaps.locked
    locked = (clean + dirty)[of_file & smaps.locked]
    return FilePages(int(clean[free].sum()), int(dirty[free].sum()), int(locked.sum()))


def pages_of_mappings(smaps: Smaps) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clean and the dirty bytes that each mapping has of its file, shape (n,) each; locked ones too."""

    def column(*names: str) -> NDArray[np.int64]:
        columns: NDArray[np.int64] = np.array([smaps.column(name) for name in names], np.int64)
        total: NDArray[np.int64] = columns.sum(axis=0)
        return total

    anonymous, lazy = column("Anonymous"), column("LazyFree")
    # Copies that a private mapping has of what was written are anonymous, and dirty unless they are lazily freed.
    clean = np.maximum(column("Shared_Clean", "Private_Clean") - lazy, 0)
    dirty = np.maximum(column("Shared_Dirty", "Private_Dirty") - (anonymous - lazy), 0)
    return clean, dirty


def read_file_pages(
    smaps: Callable[[], Smaps], mappings: Mappings, rollup: Rollup, status: Status, shmem_devices: tuple[int, ...]
) -> FilePages | None:
    """Return the resident pages of files, None where the sums do not tell and the mappings would cost too much.

    `smaps` reads those; what it raises is raised.
    """
    known = pages_by_sums(rollup, status)
    if known is not None or rollup.rss is None or rollup.anonymous is None or len(mappings) > MOST_MAPPINGS:
        return known
    file = rollup.rss - rollup.anonymous - (status.rss_shmem or 0)
    cheap = len(mappings) <= _CHEAP_MAPPINGS and rollup.rss <= _CHEAP_RSS
    return pages_by_mapping(smaps(), mappings, shmem_devices) if cheap or file >= _WORTH_A_WALK else None


def find_shmem_devices(target: Target) -> tuple[int, ...]:
    """Return the devices whose files are shared memory: the kernel's own, and each tmpfs that the target sees."""
    devices = {_own_shmem_device()}
    try:
        mounts = parse_mountinfo(target.read("mountinfo", _MOST_MOUNTINFO).decode("utf-8", errors="replace"))
    except (OSError, TargetError):
        mounts = []
    devices.update(mount.device for mount in mounts if mount.kind in _SHMEM_FILE_SYSTEMS)
    return tuple(sorted(device for device in devices if device is not None))


@cache
def _own_shmem_device() -> int | None:
    """Return the device of the kernel's internal tmpfs (memfd, MAP_SHARED|MAP_ANONYMOUS, SysV), None without memfd."""
    try:
        fd = os.memfd_create("gomem")
    except OSError:
        return None
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)
