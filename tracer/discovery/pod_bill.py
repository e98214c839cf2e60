"""The whole bill of a memory cgroup: its figures, its processes one by one, and what is nobody's.

Nothing is attached and no process's memory is read: files of the cgroup and small ones of /proc/PID only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from gomem.tracer.discovery.prober import Prober
from gomem.tracer.discovery.recognition import ProgramKind, Recognition
from gomem.tracer.errors import TargetError
from gomem.tracer.kernel.bpf_maps import OpenMaps
from gomem.tracer.kernel.cgroup import below, hierarchy_mounts, memory_membership, places, upwards
from gomem.tracer.kernel.cgroup_bill import machine_pressure, parse_io, read_bill, read_bills
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.kernel.cgroup_tree import MOST_CGROUPS, MOST_PROCESSES, Tree, walk
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.proc.cgroup_paths import container_id, pod_uid
from gomem.tracer.proc.mounts import MOUNTINFO_BYTES, Mount, parse_mountinfo
from gomem.tracer.proc.small_files import colon_fields, kib_field, parse_stat, printable, read_bounded
from gomem.tracer.process.target import Target
from gomem.tracer.report import CgroupBill, FileIo, Limit
from gomem.tracer.report.findings.cgroup import Inside, of_bill
from gomem.tracer.report.pod import BpfMaps, PodProcess, PodReport, ProcessSums

MOST_LISTED = 1000
_SMALL = 1 << 16
_MOST_BELOW = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cgroup is: `path` as our cgroup namespace has it, in the hierarchy `mount` that is seen at `point`."""

    version: Literal[1, 2]
    path: str
    mount: Mount
    point: str


def place_of(target: Target) -> Place:
    """Return the cgroup of the target's pod, of its container, or the one that it is charged to, in this order.

    May have to wait for the target's file systems. Raises TargetGone, and TargetError where none can be seen.
    """
    membership = memory_membership(printable(target.read("cgroup")))
    if membership is None:
        raise TargetError(f"process {target.pid} is in no memory cgroup: this kernel has none")
    is_root = False
    for mount, point in places(target, membership):
        is_root = is_root or below(mount.root, membership.path) == ""
        try:
            bills = read_bills(mount, point, membership.path, membership.version)
        except OSError:
            continue
        if bills:
            path = _widest(mount, bills[0].path)
            return Place(membership.version, path, mount, point)
    fix = "run gomem in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its container"
    raise TargetError(
        f"the figures of process {target.pid}'s memory cgroup ({membership.path}) cannot be read: "
        + ("it is the root, which has none" if is_root else "it is not mounted where gomem runs"),
        "" if is_root else fix,
    )


def _widest(mount: Mount, path: str) -> str:
    """Return the cgroup of the pod that `path` lies in, of the container, or `path`; all as far as they are mounted."""
    relative = below(mount.root, path) or ""
    seen = [(mount.root.rstrip("/") + part) or "/" for part in upwards(relative)]
    container = container_id(path)
    of_pod = [one for one in seen if pod_uid(one)]
    of_container = [one for one in seen if container and container_id(one) == container]
    return (of_pod or of_container or [path])[-1]


def place_named(name: str) -> Place:
    """Return the cgroup of that name: a path in the hierarchy ("/kubepods/pod1"), or of its directory.

    Raises TargetError where there is none.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = parse_mountinfo(printable(file.read(MOUNTINFO_BYTES)))
    versions: tuple[Literal[1, 2], ...] = (1, 2)
    for version in versions:
        for mount in hierarchy_mounts(mounts, version):
            for relative in _relatives(name, mount):
                try:
                    with Directory.of_mount(mount.point, relative, mount.device) as files:
                        path = (mount.root.rstrip("/") + relative) or "/"
                        if read_bill(files, path, version) is not None:
                            return Place(version, path, mount, mount.point)
                except OSError:
                    continue
    raise TargetError(
        f"there is no memory cgroup {name}", "give its path as in /proc/PID/cgroup, or that of its directory"
    )


def _relatives(name: str, mount: Mount) -> Iterator[str]:
    """Yield what `name` may be, relative to the mount: "" or "/a/b"."""
    parts = [part for part in name.split("/") if part]
    if ".." in parts or "\0" in name:
        return
    path = "/" + "/".join(parts)
    for root in (mount.point, mount.root):
        rest = below(root, path)
        if rest is not None:
            yield rest


def pod_bill(place: Place) -> PodReport:
    """Return the bill of a cgroup. Raises TargetError when it is gone."""
    taken_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        relative = below(place.mount.root, place.path)
        assert relative is not None
        bills = read_bills(place.mount, place.point, place.path, place.version)
        with Directory.of_mount(place.point, relative, place.mount.device) as files:
            tree = walk(files, place.path, place.version)
    except OSError:
        bills = []
    if not bills or bills[0].path != place.path:
        raise TargetError(f"the memory cgroup {place.path} is gone")
    maps = OpenMaps()
    processes = sorted(_processes(tree, place, maps), key=lambda one: (-one.rss, one.pid))
    processes = _with_kinds(processes)
    sums = _sums(processes)
    return PodReport(
        taken_at=taken_at,
        path=place.path,
        pod=pod_uid(place.path),
        container_id=container_id(place.path),
        bill=bills[0],
        above=bills[1:],
        below=_below(tree, bills[0]),
        processes=processes[:MOST_LISTED],
        sums=sums,
        bpf_maps=BpfMaps(len(maps.sizes), sum(maps.sizes.values())) if maps.readable else None,
        machine_pressure=machine_pressure(),
        findings=of_bill(bills[0], _inside(processes, sums)),
        limits=list(_limits(tree, processes, maps)),
    )


def _below(tree: Tree, bill: CgroupBill) -> list[CgroupBill]:
    found = sorted(tree.bills, key=lambda one: (-one.memory_current, one.path))[:_MOST_BELOW]
    if bill.limit is None:
        return found
    return [
        one if one.limit is not None and one.limit <= bill.limit
        else replace(one, limit=bill.limit, limited_by=bill.limited_by)
        for one in found
    ]  # fmt: skip


def _processes(tree: Tree, place: Place, maps: OpenMaps) -> Iterator[PodProcess]:
    for pid, cgroup in tree.pids.items():
        try:
            opened = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            found = _process(opened, pid, cgroup, place)
            if found is not None:
                maps.look(opened)
                yield found
        finally:
            os.close(opened)


def _process(opened: int, pid: int, cgroup: str, place: Place) -> PodProcess | None:
    """Return the process that this directory of /proc is of, if it is in the cgroup and has memory."""
    status = colon_fields(_read(opened, "status"))
    rss = kib_field(status, "VmRSS")
    if rss is None:  # a kernel thread, one that has ended, or gone
        return None
    try:
        name = parse_stat(_read(opened, "stat")).comm
    except ValueError:
        return None
    # The number may have gone to another process since the cgroup was read.
    membership = memory_membership(printable(_read(opened, "cgroup")))
    inside = None if membership is None else below(place.path, membership.path)
    if inside is None:
        return None
    return PodProcess(
        pid=pid,
        name=name,
        go=None,
        cgroup=cgroup,
        rss=rss,
        anonymous=kib_field(status, "RssAnon"),
        file=kib_field(status, "RssFile"),
        shmem=kib_field(status, "RssShmem"),
        swap=kib_field(status, "VmSwap"),
        page_tables=kib_field(status, "VmPTE"),
        io=parse_io(_read(opened, "io")),
    )


def _read(opened: int, name: str) -> bytes:
    """Return a small file of a process, b"" where it cannot be had."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=opened)
    except OSError:
        return b""
    try:
        return read_bounded(fd, _SMALL)[0]
    except OSError:
        return b""
    finally:
        os.close(fd)


def _with_kinds(processes: list[PodProcess]) -> list[PodProcess]:
    """Return the processes with the word whether each is a Go program."""
    prober = Prober(Recognition())
    try:
        looks = prober.look([one.pid for one in processes], ())
    finally:
        prober.stop()
    known = {
        look.pid: look.recognized.kind is ProgramKind.GO
        for look in looks
        if look.recognized and look.recognized.kind in (ProgramKind.GO, ProgramKind.NOT_GO)
    }
    return [replace(one, go=known.get(one.pid)) for one in processes]


def _total(amounts: Iterable[int | None]) -> int:
    return sum(amount or 0 for amount in amounts)


def _sums(processes: list[PodProcess]) -> ProcessSums:
    moved = [one.io for one in processes if one.io is not None]
    return ProcessSums(
        processes=len(processes),
        go=sum(one.go is True for one in processes),
        rss=_total(one.rss for one in processes),
        go_rss=_total(one.rss for one in processes if one.go),
        anonymous=_total(one.anonymous for one in processes),
        swap=_total(one.swap for one in processes),
        io=FileIo(_total(one.read for one in moved), _total(one.written for one in moved)) if moved else None,
    )


def _inside(processes: list[PodProcess], sums: ProcessSums) -> Inside:
    shmem = max((one.shmem or 0 for one in processes), default=0)
    return Inside("its processes", sums.rss, sums.anonymous, shmem, sums.io, alone=False)


def _limits(tree: Tree, processes: list[PodProcess], maps: OpenMaps) -> Iterator[Limit]:
    if tree.cut:
        why = f"there are more than {MOST_CGROUPS} cgroups or {MOST_PROCESSES} processes in it"
        yield Limit("cgroup-cut", "processes of the cgroup", why, "look at one of the cgroups in it: --cgroup PATH")
    if tree.unseen:
        why = f"{tree.unseen} are not in the PID namespace that gomem runs in"
        yield Limit("cgroup-hidden", "processes of the cgroup", why, "run gomem in the host's PID namespace")
    untold = [one.pid for one in processes if one.go is None]
    if untold:
        what = f"whether {len(untold)} processes are Go programs"
        yield Limit("cgroup-programs", what, "their executables cannot be read", remedy_for(untold[0], "exe"))
    if len(processes) > MOST_LISTED:
        why = f"the sums are of all {len(processes)}"
        yield Limit("cgroup-listed", f"all but the {MOST_LISTED} largest processes", why, "")
    if maps.cut:
        yield Limit("cgroup-descriptors", "all BPF maps", "the processes have too many open files to look at each", "")
    if not maps.readable and processes:
        why = "the open files of the processes may not be seen"
        yield Limit("cgroup-bpf-maps", "BPF maps of the processes", why, remedy_for(processes[0].pid, "fd"))
