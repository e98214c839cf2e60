"""Which file systems are served by others: by a process (FUSE) or a far machine, who may take a request and not answer.

Whoever waits for one sleeps in the kernel, and often no signal ends that. statfs(2) would tell, but asks the file
system itself; so its kind is taken from the list of mounts, by the number of the mount that a descriptor lies on. A
descriptor keeps its mount: the number is nobody else's meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache

from gomem.tracer.proc.mounts import MOUNTINFO_BYTES, Mount, parse_mountinfo
from gomem.tracer.proc.small_files import printable, read_bounded
from gomem.tracer.proc.unasked import status_of

# Of those without a block device, the kinds that keep what they hold in this machine's RAM, or on disks of their own.
_LOCAL = frozenset(("bcachefs", "btrfs", "devtmpfs", "hugetlbfs", "ramfs", "rootfs", "tmpfs", "ubifs", "zfs"))
_STACKED = "overlay"
_SERVED_BY_BLOCKS = "fuseblk"  # FUSE, though it has a block device
UNKNOWN = "unknown"
_MFD_NOEXEC_SEAL = 0x8  # since Linux 6.3, where vm.memfd_noexec may ask for it
_LAYERS = re.compile(r"(?:lowerdir\+?|datadir\+|upperdir)=(.*)", re.DOTALL)
_INITIAL_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO of include/linux/proc_ns.h


def server_of(opened: int, process: str) -> str | None:
    """Return the kind of file system that a descriptor (O_PATH suffices) lies on if others serve it, None if none do.

    `process`: /proc/PID of a process that sees the file. A mount that nobody lists (detached, or of a namespace that
    we do not see) is of an UNKNOWN kind, unless it has a block device or is the kernel's own for memfd_create(2).
    Nobody is asked. Raises OSError.
    """
    device = status_of(opened).st_dev
    mount = _mount_of(opened, process)
    if mount is None:
        return None if os.major(device) or device == _memory_device() else UNKNOWN
    if mount.kind == _STACKED:
        return _server_below(mount, process)
    local = mount.kind in _LOCAL or (os.major(device) != 0 and not _is_served(mount.kind))
    return None if local else mount.kind


def _is_served(kind: str) -> bool:
    return kind == _SERVED_BY_BLOCKS or kind.startswith(f"{_SERVED_BY_BLOCKS}.")


def _mount_of(opened: int, process: str) -> Mount | None:
    """Return the mount that a descriptor lies on, from the first list that has it."""
    with open(f"/proc/self/fdinfo/{opened}", encoding="ascii") as file:
        number = next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")
    line = re.compile(rb"^" + number.encode() + rb" .*$", re.MULTILINE)
    for whose in (process, "/proc/self"):
        if found := line.search(_mountinfo(whose)):
            return next(iter(parse_mountinfo(printable(found[0]))), None)
    return None


def _server_below(overlay: Mount, process: str) -> str | None:
    """Return what of the layers of an overlay file system is served, as far as can be told.

    Whoever may do so in a user namespace of his own can stack it upon anything, and hide that. So it is trusted where
    it is mounted in a namespace of the initial user's; what its layers lie on is looked up there.
    """
    for mounts in _trusted_lists(process):
        if any(one.device == overlay.device and one.kind == _STACKED for one in mounts):
            kinds = (_kind_at(path, mounts) for path in layers(overlay))
            return next((f"{_STACKED} on {kind}" for kind in kinds if kind is not None), None)
    return _STACKED


def _trusted_lists(process: str) -> Iterator[Sequence[Mount]]:
    for whose in ("/proc/self", "/proc/1", process):
        try:
            if os.readlink(f"{whose}/ns/user") == _INITIAL_USER_NAMESPACE:
                yield parse_mountinfo(printable(_mountinfo(whose)))
        except OSError:
            continue  # we may not look at that one


def layers(overlay: Mount) -> list[str]:
    """Return the absolute paths of an overlay's layers, as its mount options name them."""
    found: list[str] = []
    for option in overlay.super_options:
        named = _LAYERS.fullmatch(option)
        if named:
            found += [path for path in re.split(r"(?<!\\):+", named[1]) if path.startswith("/")]
    return found


def _kind_at(path: str, mounts: Sequence[Mount]) -> str | None:
    """Return the kind of file system at a path if others serve it; of two mounts at one point the later is seen."""
    above = [one for one in mounts if one.point == "/" or f"{path}/".startswith(f"{one.point}/")]
    mount = max(reversed(above), key=lambda one: len(one.point), default=None)
    if mount is None or mount.kind in _LOCAL or mount.kind == _STACKED:
        return None
    return mount.kind if os.major(mount.device) == 0 or _is_served(mount.kind) else None


def _mountinfo(process: str) -> bytes:
    try:
        file = os.open(f"{process}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return read_bounded(file, MOUNTINFO_BYTES)[0]
    finally:
        os.close(file)


def memory_file(name: str) -> int:
    """Return a descriptor of a file in memory that is not executed. Raises OSError."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, os.MFD_CLOEXEC)


@cache
def _memory_device() -> int:
    """Return the device of the kernel's own file system for memfd_create(2), which is never mounted anywhere."""
    made = memory_file("gomem-device")
    try:
        return status_of(made).st_dev
    finally:
        os.close(made)
