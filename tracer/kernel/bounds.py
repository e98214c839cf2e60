"""What bounds a process beside RAM: resource limits, mappings, threads, the CPU quota, each with what is used.

Sources: proc_pid_limits(5), proc_sys_vm(5), proc_loadavg(5), Documentation/admin-guide/cgroup-v2.rst,
cgroup-v1/pids.rst, scheduler/sched-bwc.rst; copy_process() in kernel/fork.c for who RLIMIT_NPROC holds for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from gomem.tracer.kernel.cgroup import below, membership_of, places, upwards
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.proc.small_files import (
    Status,
    colon_fields,
    decimal,
    kib_field,
    parse_limits,
    parse_status,
    printable,
)
from gomem.tracer.process.target import Target
from gomem.tracer.report import Bound, BoundName, CpuBound

_SYS_ADMIN, _SYS_RESOURCE, _IPC_LOCK = 1 << 21, 1 << 24, 1 << 14  # include/uapi/linux/capability.h
_MOST_PROCESSES = 20_000
_NEVER = 2  # vm.overcommit_memory
_SMALL = 1 << 16


def read_bounds(target: Target, status: Status, mappings: int) -> list[Bound]:
    """Return the bounds of now; `status` is the target's, `mappings` how many it has. Raises as `target.read` does."""
    limits = parse_limits(target.read("limits"))
    machine = colon_fields(_text("/proc/meminfo"))
    capabilities = status.cap_effective or 0
    never = decimal(_word("/proc/sys/vm/overcommit_memory")) == _NEVER
    locked = None if capabilities & _IPC_LOCK else limits.get("Max locked memory")
    bounds = [
        _bound("RLIMIT_AS", limits.get("Max address space"), status.vm_size),
        _bound("RLIMIT_DATA", limits.get("Max data size"), status.vm_data),
        _bound("RLIMIT_MEMLOCK", locked, status.vm_lck),
        _bound("CommitLimit", kib_field(machine, "CommitLimit") if never else None, kib_field(machine, "Committed_AS")),
        _bound("vm.max_map_count", decimal(_word("/proc/sys/vm/max_map_count")), mappings, "count"),
        _of_user(limits.get("Max processes"), status),
        _bound("kernel.threads-max", decimal(_word("/proc/sys/kernel/threads-max")), _machine_threads(), "count"),
    ]
    pids = _of_cgroup(target)
    return [*bounds, pids] if pids is not None else bounds


def _bound(
    name: BoundName,
    limit: int | None,
    used: int | None,
    unit: Literal["bytes", "count"] = "bytes",
    cgroup: str | None = None,
) -> Bound:
    left = None if limit is None or used is None else max(limit - used, 0)
    return Bound(name, unit, limit, used, left, cgroup)


def _of_user(limit: int | None, status: Status) -> Bound:
    exempt = status.uid == 0 or bool((status.cap_effective or 0) & (_SYS_ADMIN | _SYS_RESOURCE))
    limit = None if exempt else limit
    machine = _machine_threads()
    # To count them takes a look at every process: only where it may matter.
    near = limit is not None and machine is not None and status.uid is not None and 2 * machine >= limit
    return _bound("RLIMIT_NPROC", limit, threads_of(status.uid) if near and status.uid is not None else None, "count")


def threads_of(uid: int) -> int | None:
    """Return how many threads the processes of a user have that can be seen; None where there are too many to count."""
    count = 0
    with os.scandir("/proc") as entries:
        for seen, entry in enumerate(one for one in entries if one.name.isdecimal()):
            if seen >= _MOST_PROCESSES:
                return None
            with suppress(OSError):
                status = parse_status(_text(f"/proc/{entry.name}/status"))
                count += (status.threads or 0) if status.uid == uid else 0
    return count


def _machine_threads() -> int | None:
    """Return how many threads the machine has, those of the kernel included: they count, too (nr_threads)."""
    words = _word("/proc/loadavg").split(" ")
    return decimal(words[3].partition("/")[2]) if len(words) > 3 else None


def _of_cgroup(target: Target) -> Bound | None:
    """Return pids.max of the cgroup with the least distance; None where there is no such cgroup to be seen."""
    found = [
        _bound("pids.max", files.number("pids.max"), current, "count", path)
        for files, path in _levels(target, "pids")
        if (current := files.number("pids.current")) is not None
    ]
    return min(found, key=lambda one: (one.left is None, one.left or 0), default=None)


def read_cpu(target: Target) -> CpuBound:
    """Return the CPU quota, and how often it was used up. Raises TargetGone."""
    lowest: tuple[float, str, Mapping[str, int]] | None = None
    for files, path in _levels(target, "cpu"):
        quota = _quota(files)
        if quota is not None and (lowest is None or quota < lowest[0]):
            lowest = quota, path, files.numbers("cpu.stat")
    stat = lowest[2] if lowest else {}
    periods, throttled = stat.get("nr_periods"), stat.get("nr_throttled")
    waited = _first(stat, ("throttled_usec", 1e6), ("throttled_time", 1e9))
    return CpuBound(
        quota=lowest[0] if lowest else None,
        cgroup=lowest[1] if lowest else None,
        allowed=_allowed(target.pid),
        gomaxprocs=None,
        periods=periods,
        throttled=throttled,
        throttled_share=min(throttled / periods, 1.0) if periods and throttled is not None else None,
        throttled_seconds=waited,
    )


def _first(stat: Mapping[str, int], *names: tuple[str, float]) -> float | None:
    return next((stat[name] / unit for name, unit in names if name in stat), None)


def _quota(files: Directory) -> float | None:
    """Return a cgroup's quota in CPUs, None without one."""
    words = files.text("cpu.max").split()
    if len(words) == 2:  # v2: "max 100000"
        quota, period = decimal(words[0]), decimal(words[1])
    else:
        quota, period = files.number("cpu.cfs_quota_us"), files.number("cpu.cfs_period_us")
    return quota / period if quota and period else None


def _allowed(pid: int) -> int | None:
    try:
        return len(os.sched_getaffinity(pid))
    except OSError:
        return None


def _levels(target: Target, controller: str) -> Iterator[tuple[Directory, str]]:
    """Yield the target's cgroup of a controller and its ancestors, with their paths, each open until the next."""
    membership = membership_of(printable(target.read("cgroup")), controller)
    if membership is None:
        return
    for mount, point in places(target, membership):
        relative = below(mount.root, membership.path)
        assert relative is not None
        seen = False
        for part in upwards(relative):
            try:
                files = Directory.of_mount(point, part, mount.device)
            except OSError:
                break
            seen = True
            with files:
                yield files, (mount.root.rstrip("/") + part) or "/"
        if seen:
            return


def _text(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_SMALL)


def _word(path: str) -> str:
    try:
        return printable(_text(path)).strip()
    except OSError:
        return ""
