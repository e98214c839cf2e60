"""The kernel's view of a process at one moment: everything that needs no knowledge of Go."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gomem.tracer.errors import GomemError, TargetGone
from gomem.tracer.kernel.address_limits import read_address_limits
from gomem.tracer.kernel.bounds import read_bounds, read_cpu
from gomem.tracer.kernel.cgroup import MemoryCgroup, read_memory_cgroup
from gomem.tracer.kernel.cgroup_bill import bills_of, parse_io
from gomem.tracer.kernel.file_pages import MOST_MAPPINGS, FilePages, find_shmem_devices, read_file_pages
from gomem.tracer.kernel.mapped_files import WORTH_SMAPS, data_in_ram, mapped_files
from gomem.tracer.kernel.maps import Mappings, MappingsRead, read_mappings
from gomem.tracer.kernel.pagemap import read_residency
from gomem.tracer.kernel.residency import Method, Residency
from gomem.tracer.kernel.settings import read_settings
from gomem.tracer.kernel.smaps import Rollup, Smaps, read_rollup, read_smaps
from gomem.tracer.machine.rights import Right, remedy, remedy_for
from gomem.tracer.proc.small_files import Status
from gomem.tracer.process.target import Target
from gomem.tracer.report import AddressLimits, Bound, CgroupBill, CpuBound, FileIo, Limit, MappedFile, MemorySettings
from gomem.tracer.report import Resident as ResidentReport

_FILE_PAGES = "what of the pages of files the kernel can drop"


class KernelView(Struct, frozen=True):
    """What the kernel says of the target; all sizes in bytes.

    `virtual_skew` is by how much the mappings miss VmSize, `resident_skew` by how much the resident pages miss
    smaps_rollup's Rss (None without it): 0 on a quiet target. A part that was refused is None and has a Limit.
    """

    taken_at: str  # RFC 3339
    mappings: Mappings
    residency: Residency
    rollup: Rollup | None
    status: Status
    cgroup: MemoryCgroup | None
    vm_size: int
    virtual_skew: int
    resident_skew: int | None
    attempts: int
    limits: list[Limit]
    mappings_read: tuple[int, int] = (0, 0)  # when it began and ended, CLOCK_MONOTONIC ns
    start_break: int = 0  # where [heap] begins, or would; 0 where it is not known
    file_pages: FilePages | None = None
    shmem_devices: tuple[int, ...] = ()  # of files that are shared memory; looked for only if there is any
    address_limits: AddressLimits | None = None
    cgroup_bills: tuple[CgroupBill, ...] = ()  # of its cgroup, and of its ancestors with a limit
    file_io: FileIo | None = None
    bounds: tuple[Bound, ...] | None = None
    cpu: CpuBound | None = None
    settings: MemorySettings | None = None
    files: list[MappedFile] | None = None  # None: in a recording from before they were told

    def resident(self) -> ResidentReport:
        """Return the `resident` part of the report: the total by OS page, the rest as smaps_rollup splits it."""
        rollup = self.rollup
        anonymous = rollup.anonymous if rollup else self.status.rss_anon
        shmem = self.status.rss_shmem
        file = None
        if rollup and rollup.rss is not None and rollup.anonymous is not None and shmem is not None:
            file = max(rollup.rss - rollup.anonymous - shmem, 0)
        return ResidentReport(
            total=self.residency.rss_bytes,
            anonymous=anonymous,
            file=file if file is not None else self.status.rss_file,
            shmem=shmem,
            swap=rollup.swap if rollup else self.status.vm_swap,
            lazy_free=rollup.lazy_free if rollup else None,
            huge_pages=rollup.anon_huge_pages if rollup else None,
            pss=rollup.pss if rollup else None,
            file_clean=self.file_pages.clean if self.file_pages else None,
            file_dirty=self.file_pages.dirty if self.file_pages else None,
            file_locked=self.file_pages.locked if self.file_pages else None,
            skew=self.resident_skew,
        )


def read_kernel_view(
    target: Target, method: Literal["auto"] | Method = "auto", attempts: int = 3, patience: float = 0.25
) -> KernelView:
    """Read mappings, residency, sums, status and cgroup of a live process.

    They are read one after the other, so on a busy target they disagree; they are read again, at most `attempts`
    times and for `patience` seconds, until they agree, and the reading that disagrees least is returned. One
    reading of a quiet process takes some 2 ms, and 25 ms more for each GB of resident small pages.
    Raises TargetGone, and NotPermitted where not even the mappings may be read.
    """
    deadline = time.monotonic() + patience
    best: KernelView | None = None
    for attempt in range(1, attempts + 1):
        view = _read_once(target, method, attempt)
        if best is None or _disagreement(view) < _disagreement(best):
            best = view
        if _disagreement(view) == 0 or time.monotonic() > deadline:
            break
    assert best is not None
    target.check_alive()
    bounds, cpu, untold = _read_bounds(target, best)
    return replace(
        best,
        cgroup_bills=tuple(_read_bills(target)),
        file_io=_read_file_io(target),
        bounds=bounds,
        cpu=cpu,
        settings=read_settings(target, best.status, best.rollup, len(best.mappings)),
        limits=[*best.limits, *untold],
    )


def _disagreement(view: KernelView) -> int:
    return view.virtual_skew + (view.resident_skew or 0) + view.residency.unmapped_bytes


def _read_once(target: Target, method: Literal["auto"] | Method, attempt: int) -> KernelView:
    taken_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    read: MappingsRead = read_mappings(target)
    residency = read_residency(target, read.mappings, method)
    rollup, no_rollup = _read_rollup(target)
    cgroup, no_cgroup = _read_cgroup(target)
    inexact = [] if residency.exact else [_inexact(target.pid, residency)]
    known_rss = rollup.rss if rollup else None
    status = target.status()
    shmem_devices = find_shmem_devices(target) if status.rss_shmem else ()
    smaps = _SmapsOnce(target)
    file_pages, no_file_pages = _read_file_pages(smaps, read.mappings, rollup, status, shmem_devices)
    files, no_files = _read_files(smaps, read.mappings, residency, shmem_devices)
    address_limits, no_limits = _read_address_limits(target, status)
    return KernelView(
        taken_at=taken_at,
        mappings=read.mappings,
        residency=residency,
        rollup=rollup,
        status=status,
        cgroup=cgroup,
        vm_size=read.vm_size,
        virtual_skew=read.skew_bytes,
        resident_skew=None if known_rss is None else abs(known_rss - residency.rss_bytes),
        attempts=attempt,
        limits=[*no_rollup, *no_cgroup, *inexact, *no_file_pages, *no_files, *no_limits],
        mappings_read=read.read_at,
        start_break=target.stat().start_break,
        file_pages=file_pages,
        shmem_devices=shmem_devices,
        address_limits=address_limits,
        files=files,
    )


def _read_rollup(target: Target) -> tuple[Rollup | None, list[Limit]]:
    try:
        return read_rollup(target), []
    except TargetGone:
        raise
    except (GomemError, FileNotFoundError) as error:
        return None, [_limit("smaps-rollup", "PSS, lazily freed and huge pages", error)]


class _SmapsOnce:
    """Reads smaps when it is asked for first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.known: Smaps | None = None

    def __call__(self) -> Smaps:
        if self.known is None:
            self.known = read_smaps(self._target)
        return self.known


def _read_files(
    smaps: _SmapsOnce, mappings: Mappings, residency: Residency, shmem_devices: tuple[int, ...]
) -> tuple[list[MappedFile], list[Limit]]:
    """Return the mapped files; with their clean and dirty pages where it is worth it, or smaps was read anyway."""
    refused = []
    worth = len(mappings) <= MOST_MAPPINGS and data_in_ram(mappings, residency) >= WORTH_SMAPS
    try:
        if worth:
            smaps()
    except TargetGone:
        raise
    except (GomemError, FileNotFoundError) as error:
        refused = [_limit("mapped-files", "clean and dirty pages of each mapped file", error)]
    return mapped_files(mappings, residency, shmem_devices, smaps.known), refused


def _read_file_pages(
    smaps: _SmapsOnce, mappings: Mappings, rollup: Rollup | None, status: Status, shmem_devices: tuple[int, ...]
) -> tuple[FilePages | None, list[Limit]]:
    if rollup is None:
        return None, []
    try:
        pages = read_file_pages(smaps, mappings, rollup, status, shmem_devices)
    except TargetGone:
        raise
    except (GomemError, FileNotFoundError) as error:
        return None, [_limit("file-pages", _FILE_PAGES, error)]
    if pages is None and len(mappings) > MOST_MAPPINGS:
        why = f"smaps tells it by mapping, and to read it for {len(mappings)} mappings takes too long"
        return None, [Limit("file-pages", _FILE_PAGES, why, "")]
    return pages, []


def _read_address_limits(target: Target, status: Status) -> tuple[AddressLimits | None, list[Limit]]:
    try:
        return read_address_limits(target, status), []
    except TargetGone:
        raise
    except (GomemError, OSError) as error:
        return None, [_limit("address-limits", "limits of the address space", error)]


def _read_cgroup(target: Target) -> tuple[MemoryCgroup | None, list[Limit]]:
    try:
        cgroup = read_memory_cgroup(target)
    except TargetGone:
        raise
    except (GomemError, OSError) as error:
        return None, [_limit("memory-cgroup", "memory cgroup", error)]
    if cgroup is None or cgroup.charged is not None or cgroup.cgroup.path == "/":
        return cgroup, []
    unmounted = Limit(
        "memory-cgroup-figures",
        "figures of the target's memory cgroup",
        f"its directory {cgroup.cgroup.path} is not mounted where gomem runs",
        "run gomem in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its container",
    )
    return cgroup, [unmounted]


def _read_bounds(target: Target, view: KernelView) -> tuple[tuple[Bound, ...] | None, CpuBound | None, list[Limit]]:
    mappings = len(view.mappings) - view.mappings.name.count("[vsyscall]")  # which is of the kernel, and counts nowhere
    try:
        return tuple(read_bounds(target, view.status, mappings)), read_cpu(target), []
    except TargetGone:
        raise
    except (GomemError, OSError) as error:
        return None, None, [_limit("process-bounds", "limits of mappings, threads and CPUs", error)]


def _read_bills(target: Target) -> list[CgroupBill]:
    try:
        return bills_of(target)
    except TargetGone:
        raise
    except (GomemError, OSError):  # _read_cgroup has said why
        return []


def _read_file_io(target: Target) -> FileIo | None:
    try:
        return parse_io(target.read("io"))
    except TargetGone:
        raise
    except (GomemError, OSError):  # another user's, or a kernel without TASK_IO_ACCOUNTING: it is evidence only
        return None


def _limit(kind: str, what: str, error: Exception) -> Limit:
    if isinstance(error, GomemError):
        return Limit(kind, what, error.what, error.fix)
    return Limit(kind, what, str(error), "")


def _inexact(pid: int, residency: Residency) -> Limit:
    if residency.method == "smaps":
        kind, what, why = "resident-pages", "which OS pages are resident", "only sums per mapping are known"
        if residency.denied:
            return Limit(kind, what, f"/proc/{pid}/pagemap may not be read: {why}", remedy_for(pid, "pagemap"))
        return Limit(kind, what, f"they are too scattered, or this kernel has no /proc/{pid}/pagemap: {why}", "")
    return Limit(
        "zero-pages",
        "zero pages",
        "the kernel hides page frame numbers, so pages that were read but never written count as resident",
        remedy(Right.PAGE_FRAMES),
    )
