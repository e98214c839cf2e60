"""Opening what lies in a hostile process's mounts, so that no file system of its making is asked.

A path through `/proc/PID/root` may lead to a file system that never answers (FUSE), mounted over what was there a
moment before; whoever opens it waits for ever. So it is opened out of what the kernel has cached (unasked.py).
"""

from __future__ import annotations

import errno
import os
import re

from gomem.tracer.proc.mounts import MOUNTINFO_BYTES, parse_mountinfo
from gomem.tracer.proc.served import server_of
from gomem.tracer.proc.small_files import printable
from gomem.tracer.proc.unasked import CACHED, IN_ROOT, NO_MAGICLINKS, NO_SYMLINKS, NO_XDEV, open_cached, status_of

_FOREIGN = re.compile(r"(/proc/\d+)/root/(.*)", re.DOTALL)
# They are the kernel's alone, and need no asking; those on kernfs are never taken from the cache without a lock.
_ASK_NOBODY = ("sysfs", "tmpfs", "cgroup", "cgroup2")


def open_mount_point(point: str, device: int) -> int:
    """Return an O_PATH descriptor of the root of the mount at `point`, which must be that of a file system's device.

    No file system of the process is asked for it, if `point` lies below a /proc/PID/root: what leads to a mount is
    always cached. Raises OSError, also where something else is mounted there by now.
    """
    foreign = _FOREIGN.fullmatch(point)
    if foreign is None:
        opened = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        opened = _walk(foreign[1], foreign[2])
    try:
        if status_of(opened).st_dev != device:
            raise FileNotFoundError(errno.ENOENT, "another file system is mounted there", point)
    except BaseException:
        os.close(opened)
        raise
    return opened


def open_within(directory: int, path: str, flags: int) -> int:
    """Open `path` as seen from a directory, on the same mount, through no symbolic link. Raises OSError."""
    return open_cached(directory, path, flags, NO_XDEV | NO_SYMLINKS)


def open_mapped(pid: int, start: int, end: int, name: str) -> int:
    """Return an O_PATH descriptor of the file that a process has mapped at `start` to `end` under `name`.

    Nobody is asked for it. Raises OSError, NotAsked where reading it would ask somebody who may not answer.
    """
    try:
        opened = os.open(f"/proc/{pid}/map_files/{start:x}-{end:x}", os.O_PATH | os.O_CLOEXEC)
    except PermissionError:  # the directory is for whoever has CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            opened = open_cached(root, name.lstrip("/"), os.O_PATH, IN_ROOT | NO_MAGICLINKS | CACHED)
        finally:
            os.close(root)
    try:
        kind = server_of(opened, f"/proc/{pid}")
        if kind:
            raise NotAsked(errno.EAGAIN, f"its file system ({kind}) is served by others, who may never answer", name)
    except BaseException:
        os.close(opened)
        raise
    return opened


class NotAsked(OSError):
    """A file is on a file system that may never answer."""


def _walk(process: str, path: str) -> int:
    """Open a directory as the process sees it, step by step."""
    flags, resolve = os.O_PATH | os.O_DIRECTORY, NO_MAGICLINKS | NO_SYMLINKS
    at = os.open(f"{process}/root", flags | os.O_CLOEXEC)
    for name in path.split("/"):
        try:
            try:
                following = open_cached(at, name or ".", flags, resolve | CACHED)
            except BlockingIOError:
                if _kind(process, at) not in _ASK_NOBODY:
                    raise
                following = open_cached(at, name, flags, resolve)
        finally:
            os.close(at)
        at = following
    return at


def _kind(process: str, opened: int) -> str | None:
    """Return the kind of file system that a descriptor lies on, as long as it is mounted where the process sees it."""
    device = status_of(opened).st_dev  # nobody else's while it is open: what is mounted is read afterwards
    with open(f"{process}/mountinfo", "rb") as file:
        mounts = parse_mountinfo(printable(file.read(MOUNTINFO_BYTES)))
    return next((mount.kind for mount in mounts if mount.device == device), None)
