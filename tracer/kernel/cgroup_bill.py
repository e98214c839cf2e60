"""What memory cgroups are charged, part by part, under v2's names: of v2's files and of v1's.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, accounting/psi.rst; mm/memcontrol.c,
mm/memcontrol-v1.c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from gomem.tracer.kernel.cgroup import below, memory_membership, places, upwards, v1_limit
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.proc.mounts import Mount
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import CgroupBill, FileIo, MemoryPressure, Stalled

# memory.stat's words in v2 -> in v1, which sums the cgroup with its descendants under total_*.
STAT_WORDS: Mapping[str, str | None] = {
    "anon": "total_rss",
    "file": "total_cache",
    "file_mapped": "total_mapped_file",
    "file_dirty": "total_dirty",
    "file_writeback": "total_writeback",
    "active_file": "total_active_file",
    "inactive_file": "total_inactive_file",
    "unevictable": "total_unevictable",
    "shmem": "total_shmem",
    "anon_thp": "total_rss_huge",
    "swapcached": "total_swapcached",
    "kernel": None,
    "kernel_stack": None,
    "pagetables": None,
    "percpu": None,
    "vmalloc": None,
    "slab_reclaimable": None,
    "slab_unreclaimable": None,
    "sock": None,
    "zswap": None,
    "zswapped": None,
}
RECLAIMABLE = ("active_file", "inactive_file", "slab_reclaimable")
# The figures that have files of their own.
_FILES: Mapping[int, Mapping[str, str]] = {
    1: {"kernel": "memory.kmem.usage_in_bytes", "sock": "memory.kmem.tcp.usage_in_bytes"},
    2: {"swap": "memory.swap.current"},
}
# What `kernel` is the sum of; it is in memory.stat since Linux 5.18.
_KERNEL = ("kernel_stack", "pagetables", "percpu", "vmalloc", "slab_reclaimable", "slab_unreclaimable")
_EVENTS = ("high", "max", "oom", "oom_kill")
_MACHINE = Path("/proc/pressure/memory")
_PRESSURE_BYTES = 4096


def without(current: int | None, parts: Mapping[str, int], *words: str) -> int | None:
    """Return `current` less these parts, at least 0; None where it or the first of them is not known."""
    if current is None or words[0] not in parts:
        return None
    return max(current - sum(parts.get(word, 0) for word in words), 0)


def working_set(current: int | None, parts: Mapping[str, int]) -> int | None:
    """Return what the kubelet reckons: usage without inactive file pages (cadvisor, container/libcontainer)."""
    return without(current, parts, "inactive_file")


def unreclaimable(current: int | None, parts: Mapping[str, int]) -> int | None:
    """Return what the kernel can put nowhere but into swap: usage without file pages and reclaimable slabs."""
    return without(current, parts, *RECLAIMABLE)


def parse_pressure(text: str) -> MemoryPressure | None:
    """Parse a file of pressure stall information; None where it is none. Never raises."""
    lines: dict[str, Stalled] = {}
    for line in text.split("\n"):
        word, *pairs = line.split(" ")
        figures = {name: figure for name, _, value in (pair.partition("=") for pair in pairs)
                   if (figure := _figure(value)) is not None}  # fmt: skip
        if {"avg10", "avg60", "avg300", "total"} <= figures.keys():
            lines[word] = Stalled(figures["avg10"], figures["avg60"], figures["avg300"], figures["total"] / 1e6)
    return MemoryPressure(lines["some"], lines["full"]) if {"some", "full"} <= lines.keys() else None


def _figure(word: str) -> float | None:
    try:
        figure = float(word)
    except ValueError:
        return None
    return figure if math.isfinite(figure) and figure >= 0 else None


def machine_pressure() -> MemoryPressure | None:
    """Return that of the whole machine, None on a kernel without it (CONFIG_PSI, psi=1)."""
    try:
        with _MACHINE.open("rb") as file:
            return parse_pressure(printable(file.read(_PRESSURE_BYTES)))
    except OSError:
        return None


def stat_parts(files: Directory, version: Literal[1, 2], stat: Mapping[str, int]) -> dict[str, int]:
    """Return `stat`, the numbers of memory.stat, under v2's names, with those that have files of their own."""
    if version == 2:
        parts = {word: stat[word] for word in STAT_WORDS if word in stat}
        if "kernel" not in parts and "kernel_stack" in parts:
            parts["kernel"] = sum(parts.get(word, 0) for word in _KERNEL)
    else:
        parts = {word: stat[old] for word, old in STAT_WORDS.items() if old is not None and old in stat}
        if "total_swap" in stat:
            parts["swap"] = stat["total_swap"]
    for word, name in _FILES[version].items():
        number = files.number(name)
        if number is not None:
            parts[word] = number
    return parts


def read_bill(files: Directory, path: str, version: Literal[1, 2]) -> CgroupBill | None:
    """Return the bill of one cgroup, limited by nothing above it; None where it has no memory controller."""
    v2 = version == 2
    current = files.number("memory.current" if v2 else "memory.usage_in_bytes")
    if current is None:
        return None
    stat = files.numbers("memory.stat")
    parts = stat_parts(files, version, stat)
    limit = files.number("memory.max") if v2 else v1_limit(files.number("memory.limit_in_bytes"))
    kept = unreclaimable(current, parts)
    return CgroupBill(
        path=path,
        version=version,
        memory_current=current,
        memory_peak=files.number("memory.peak" if v2 else "memory.max_usage_in_bytes"),
        memory_max=limit,
        memory_high=files.number("memory.high") if v2 else None,
        swap_max=files.number("memory.swap.max") if v2 else None,
        limit=limit,
        limited_by=None if limit is None else path,
        working_set=working_set(current, parts),
        reclaimable=None if kept is None else current - kept,
        unmapped=without(current, parts, "anon", "file_mapped"),
        parts=parts,
        events=_events_v2(files) if v2 else _events_v1(files),
        pressure=parse_pressure(files.text("memory.pressure")) if v2 else None,
    )


def _events_v2(files: Directory) -> dict[str, int]:
    events = files.numbers("memory.events")
    return {event: events[event] for event in _EVENTS if event in events}


def _events_v1(files: Directory) -> dict[str, int]:
    told = {"max": files.number("memory.failcnt"), "oom_kill": files.keyed("memory.oom_control", "oom_kill")}
    return {event: count for event, count in told.items() if count is not None}


def read_bills(mount: Mount, point: str, path: str, version: Literal[1, 2]) -> list[CgroupBill]:
    """Return the bills of the cgroup that a process in `path` is charged to, and of its ancestors with a limit.

    `mount` is seen at `point`. Empty where no cgroup there has the memory controller. Raises OSError where the
    directory is not there.
    """
    relative = below(mount.root, path)
    assert relative is not None
    bills: list[CgroupBill] = []
    hierarchical = None
    for part in upwards(relative):
        try:
            files = Directory.of_mount(point, part, mount.device)
        except OSError:
            if part == relative:
                raise
            break
        with files:
            bill = read_bill(files, (mount.root.rstrip("/") + part) or "/", version)
            if bill is None:
                continue
            if version == 1 and not bills:
                hierarchical = v1_limit(files.keyed("memory.stat", "hierarchical_memory_limit"))
        if not bills or bill.memory_max is not None or bill.memory_high is not None:
            bills.append(bill)
    return limited(bills, hierarchical)


def limited(bills: list[CgroupBill], hierarchical: int | None = None) -> list[CgroupBill]:
    """Return the bills of a cgroup and its ancestors, the innermost first, each with the limit that holds.

    `hierarchical`: v1's own word for the first, which knows also those above that we cannot see.
    """
    found: list[CgroupBill] = []
    lowest: tuple[int, str] | None = None
    for bill in reversed(bills):
        if bill.memory_max is not None and (lowest is None or bill.memory_max < lowest[0]):
            lowest = bill.memory_max, bill.path
        found.append(replace(bill, limit=lowest[0], limited_by=lowest[1]) if lowest else bill)
    found.reverse()
    if found and hierarchical is not None and (found[0].limit is None or hierarchical < found[0].limit):
        found[0] = replace(found[0], limit=hierarchical, limited_by=None)
    return found


def bills_of(target: Target) -> list[CgroupBill]:
    """Return the bills of the target's memory cgroup and of its ancestors with a limit; empty where none can be seen.

    May have to wait for the target's file systems. Raises TargetGone.
    """
    membership = memory_membership(printable(target.read("cgroup")))
    for mount, point in places(target, membership) if membership else ():
        assert membership is not None
        try:
            return read_bills(mount, point, membership.path, membership.version)
        except OSError:
            continue
    return []


def parse_io(raw: bytes) -> FileIo | None:
    """Parse /proc/PID/io; None where it is none. Never raises."""
    fields: dict[str, int] = {}
    for line in raw.split(b"\n"):
        word, _, value = line.partition(b": ")
        if value.isdigit() and len(value) <= 20:
            fields.setdefault(printable(word), int(value))
    if not {"read_bytes", "write_bytes"} <= fields.keys():
        return None
    written = max(fields["write_bytes"] - fields.get("cancelled_write_bytes", 0), 0)
    return FileIo(fields["read_bytes"], written)
