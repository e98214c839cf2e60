"""The kernel's view of a process at one moment: everything that needs no knowledge of Go."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tracer.errors import GomemError, TargetGone
from tracer.kernel.cgroup import MemoryCgroup, read_memory_cgroup
from tracer.kernel.maps import Mappings, MappingsRead, read_mappings
from tracer.kernel.pagemap import read_residency
from tracer.kernel.procfs import Status
from tracer.kernel.residency import Method, Residency
from tracer.kernel.smaps import Rollup, read_rollup
from tracer.report import Limit
from tracer.report import Resident as ResidentReport
from tracer.target import Target


@dataclass(frozen=True, slots=True)
class KernelView:
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
    return best


def _disagreement(view: KernelView) -> int:
    return view.virtual_skew + (view.resident_skew or 0) + view.residency.unmapped_bytes


def _read_once(target: Target, method: Literal["auto"] | Method, attempt: int) -> KernelView:
    limits: list[Limit] = []
    taken_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    read: MappingsRead = read_mappings(target)
    residency = read_residency(target, read.mappings, method)
    rollup = _read_rollup(target, limits)
    cgroup = _read_cgroup(target, limits)
    if not residency.exact:
        limits.append(_inexact(residency.method))
    known_rss = rollup.rss if rollup else None
    return KernelView(
        taken_at=taken_at,
        mappings=read.mappings,
        residency=residency,
        rollup=rollup,
        status=target.status(),
        cgroup=cgroup,
        vm_size=read.vm_size,
        virtual_skew=read.skew_bytes,
        resident_skew=None if known_rss is None else abs(known_rss - residency.rss_bytes),
        attempts=attempt,
        limits=limits,
        mappings_read=read.read_at,
        start_break=target.stat().start_break,
    )


def _read_rollup(target: Target, limits: list[Limit]) -> Rollup | None:
    try:
        return read_rollup(target)
    except TargetGone:
        raise
    except (GomemError, FileNotFoundError) as error:
        limits.append(_limit("PSS, lazily freed and huge pages", error))
        return None


def _read_cgroup(target: Target, limits: list[Limit]) -> MemoryCgroup | None:
    try:
        cgroup = read_memory_cgroup(target)
    except TargetGone:
        raise
    except (GomemError, OSError) as error:
        limits.append(_limit("memory cgroup", error))
        return None
    if cgroup is not None and cgroup.charged is None and cgroup.cgroup.path != "/":
        limits.append(
            Limit(
                "figures of the target's memory cgroup",
                f"its directory {cgroup.cgroup.path} is not mounted where gomem runs",
                "run gomem in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its container",
            )
        )
    return cgroup


def _limit(what: str, error: Exception) -> Limit:
    if isinstance(error, GomemError):
        return Limit(what, error.what, error.fix)
    return Limit(what, str(error), "")


def _inexact(method: Method) -> Limit:
    if method == "smaps":
        return Limit(
            "which OS pages are resident",
            "neither PAGEMAP_SCAN nor /proc/PID/pagemap can be read: only sums per mapping are known",
            "needs Linux 6.7, or CAP_SYS_ADMIN on older kernels",
        )
    return Limit(
        "zero pages",
        "the kernel hides page frame numbers, so pages that were read but never written count as resident",
        "needs Linux 6.7, or CAP_SYS_ADMIN",
    )
