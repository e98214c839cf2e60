"""Rules on what a memory cgroup is charged beside the memory of its processes: page cache, tmpfs, the kernel's own.

Each is a function of a bill, for whoever has one: a report of a process, or `gomem pod`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gomem.tracer.report import CgroupBill, FileIo, Finding, Report
from gomem.tracer.report.findings.base import LARGE, mib, profile_command

SHARE: Final = 0.30  # of the working set, or of usage
STALLED: Final = 10.0  # percent of the last minute in which all tasks waited for memory
MOSTLY: Final = 0.50  # of a cache: that it was written rather than read


class Inside(Struct, frozen=True):
    """Whose memory a bill is held against: a process ("this process"), or all of the cgroup ("its processes")."""

    who: str
    rss: int
    anonymous: int | None
    shmem: int | None
    io: FileIo | None
    alone: bool  # who: one of the processes
    pod: str = ""  # the command that shows the bill


BillRule = Callable[[CgroupBill, Inside], Finding | None]


def of_report(report: Report) -> tuple[CgroupBill, Inside] | None:
    """Return the bill of a report whose cgroup is one of a service: it has a limit, or it is a container's."""
    bill, resident = next(iter(report.cgroup_bills or ()), None), report.resident
    if bill is None or resident is None or (bill.limit is None and report.process.container_id is None):
        return None
    pod = "" if profile_command(report) is None else f"gomem pod {report.process.pid}"
    return bill, Inside(
        "this process", resident.total, resident.anonymous, resident.shmem, report.file_io, True, pod
    )  # fmt: skip


def _much(amount: int, whole: int) -> bool:
    return amount >= max(LARGE, int(SHARE * whole))


def page_cache(bill: CgroupBill, inside: Inside) -> Finding | None:
    """Much of the working set is page cache, which no process has mapped."""
    active = bill.parts.get("active_file")
    if bill.working_set is None or active is None:
        return None
    # What is mapped is in somebody's RSS; some of it may be inactive, or shared memory: a lower bound.
    cache = active - bill.parts.get("file_mapped", 0)
    if not _much(cache, bill.working_set):
        return None
    io = inside.io
    dirty = bill.parts.get("file_dirty", 0) + bill.parts.get("file_writeback", 0)
    return Finding(
        id="working-set-page-cache",
        severity="info",
        title=f"Working set {mib(bill.working_set)}, {_rss(inside)}: {mib(cache)} is page cache of files"
        + _moved_by(cache, inside),
        explanation="The kubelet and `kubectl top` count all of the cgroup but inactive file pages. Pages of files "
        "that were used twice are active, so they are in it, though no process holds them: the kernel takes them back "
        "when memory is short, before it kills anybody"
        + (f", {mib(dirty)} of them after they have been written to the disk." if dirty >= LARGE else "."),
        evidence={
            "working_set": bill.working_set,
            "rss": inside.rss,
            "active_file": active,
            "file_mapped": bill.parts.get("file_mapped"),
            "reclaimable": bill.reclaimable,
            "read": io.read if io else None,
            "written": io.written if io else None,
        },
        action="It is no leak: judge the program by anonymous memory (anon in memory.stat). If the working set itself "
        "must be small (evictions, autoscaling), have the program drop what it wrote: fdatasync and "
        "posix_fadvise(POSIX_FADV_DONTNEED), or O_DIRECT." + _shown_by(inside),
    )


def _rss(inside: Inside) -> str:
    return f"RSS {mib(inside.rss)}" if inside.alone else f"RSS of its processes {mib(inside.rss)}"


def _moved_by(cache: int, inside: Inside) -> str:
    """Return how the files came into the cache, where the figures of the processes leave no doubt."""
    io = inside.io
    if io is None:
        return ""
    wrote, read = io.written >= MOSTLY * cache, io.read >= MOSTLY * cache
    if wrote and read:
        return f" that {inside.who} wrote and read"
    return f" that {inside.who} wrote" if wrote else f" that {inside.who} read" if read else ""


def _shown_by(inside: Inside) -> str:
    return f" `{inside.pod}`, where this report was taken, shows the whole bill." if inside.pod else ""


def tmpfs(bill: CgroupBill, inside: Inside) -> Finding | None:
    """Much of the cgroup is files in memory that are not mapped."""
    shmem = bill.parts.get("shmem")
    if shmem is None or inside.shmem is None or not _much(shmem - inside.shmem, bill.memory_current):
        return None
    return Finding(
        id="cgroup-tmpfs",
        severity="warning",
        title=f"{mib(shmem - inside.shmem)} of the cgroup's {mib(bill.memory_current)} is files in memory (tmpfs), in "
        + "no "
        + ("RSS of this process" if inside.alone else "process's RSS"),
        explanation="Files on a tmpfs (an emptyDir with medium: Memory, /dev/shm, /run), memfd and shared memory are "
        "charged to the cgroup of who touched them first, and stay when that process has ended. The kernel cannot drop "
        "them, only move them to swap.",
        evidence={"shmem": shmem, "mapped_here": inside.shmem, "memory_current": bill.memory_current},
        action="Delete the files, give the volume a sizeLimit, or put them on a disk." + _shown_by(inside),
    )


def kernel_memory(bill: CgroupBill, inside: Inside) -> Finding | None:
    """Much of the cgroup is the kernel's own memory, which cannot be reclaimed."""
    kernel = bill.parts.get("kernel")
    held = None if kernel is None else max(kernel - bill.parts.get("slab_reclaimable", 0), 0)
    sockets = bill.parts.get("sock", 0) if bill.version == 2 else 0
    if held is None or not _much(held + sockets, bill.memory_current):
        return None
    words = ("slab_unreclaimable", "pagetables", "kernel_stack", "percpu", "vmalloc", *(["sock"] if sockets else []))
    told = {word: bill.parts[word] for word in words if word in bill.parts}
    largest = max(told, key=lambda word: told[word], default=None)
    return Finding(
        id="cgroup-kernel-memory",
        severity="warning",
        title=f"{mib(held + sockets)} of the cgroup's {mib(bill.memory_current)} is memory of the kernel"
        + (f", most of it {largest} ({mib(told[largest])})" if largest and told[largest] >= MOSTLY * held else ""),
        explanation="Page tables, stacks of threads, pipes, sockets' buffers, BPF maps and the kernel's records of "
        "open files are charged to the cgroup and are in no process's RSS."
        + (" v1 does not tell how much of it is slabs that can be reclaimed." if bill.version == 1 else ""),
        evidence={"kernel": kernel, "memory_current": bill.memory_current, **told},
        action="Look for what the processes have many of: threads, open files, pipes, sockets with unread data, small "
        "mappings." + _shown_by(inside),
    )


def others(bill: CgroupBill, inside: Inside) -> Finding | None:
    """Most of the cgroup's anonymous memory is not that of the process which the report is about."""
    anon = bill.parts.get("anon")
    if not inside.alone or anon is None or inside.anonymous is None:
        return None
    rest = anon - inside.anonymous
    if rest < max(LARGE, MOSTLY * bill.memory_current):
        return None
    return Finding(
        id="cgroup-other-processes",
        severity="info",
        title=f"{mib(rest)} of the cgroup's {mib(bill.memory_current)} is anonymous memory of other processes in it",
        explanation=f"This process has {mib(inside.anonymous)} of the {mib(anon)} that the cgroup's processes have.",
        evidence={"anon": anon, "anonymous": inside.anonymous, "memory_current": bill.memory_current},
        action=f"Look at the others: `{inside.pod}`, where this report was taken, lists them."
        if inside.pod
        else "Look at the others: cgroup.procs of the cgroup has their pids.",
    )


def stalled(bill: CgroupBill, inside: Inside) -> Finding | None:
    """All of the cgroup's processes wait for memory for much of the time."""
    pressure = bill.pressure
    if pressure is None or pressure.full.avg60 < STALLED:
        return None
    return Finding(
        id="memory-pressure",
        severity="warning",
        title=f"All tasks of the cgroup waited for memory in {pressure.full.avg60:.0f} % of the last minute",
        explanation="They reclaim pages, read back what was dropped or swapped out a moment ago, or are slowed down at "
        "memory.high (memory.pressure, full avg60): the limit is too small for what they use.",
        evidence={
            "full_avg10": pressure.full.avg10,
            "full_avg60": pressure.full.avg60,
            "some_avg60": pressure.some.avg60,
            "memory_current": bill.memory_current,
            "memory_high": bill.memory_high,
            "limit": bill.limit,
        },
        action="Raise the limit (memory.high, memory.max), or have the program use less." + _shown_by(inside),
    )


_BILL_RULES: Final[tuple[BillRule, ...]] = (stalled, page_cache, tmpfs, kernel_memory, others)


def of_bill(bill: CgroupBill, inside: Inside) -> list[Finding]:
    """Return what a bill says."""
    return [found for rule in _BILL_RULES if (found := rule(bill, inside)) is not None]


def _for_report(rule: BillRule, report: Report) -> Finding | None:
    found = of_report(report)
    return rule(*found) if found else None


def memory_pressure(report: Report) -> Finding | None:
    """See `stalled`."""
    return _for_report(stalled, report)


def working_set_page_cache(report: Report) -> Finding | None:
    """See `page_cache`."""
    return _for_report(page_cache, report)


def cgroup_tmpfs(report: Report) -> Finding | None:
    """See `tmpfs`."""
    return _for_report(tmpfs, report)


def cgroup_kernel_memory(report: Report) -> Finding | None:
    """See `kernel_memory`."""
    return _for_report(kernel_memory, report)


def other_processes(report: Report) -> Finding | None:
    """See `others`."""
    return _for_report(others, report)
