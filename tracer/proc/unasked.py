"""What the kernel knows of a file without asking its file system, which may never answer (FUSE, NFS).

statx(2) gives the attributes that are cached (AT_STATX_DONT_SYNC), openat2(2) opens only what is cached
(RESOLVE_CACHED, Linux 5.12), or does not cross into another mount (RESOLVE_NO_XDEV, 5.6). Where the kernel lacks them,
or a seccomp filter refuses them, files are looked at and opened as ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_OPENAT2 = 437  # of all architectures
_STATX = {"x86_64": 332, "aarch64": 291}.get(platform.machine())
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, IN_ROOT, CACHED = 0x01, 0x02, 0x04, 0x10, 0x20  # linux/openat2.h
_AT_FDCWD, _AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_BASIC_STATS = -100, 0x1000, 0x4000, 0x7FF
# struct statx of linux/stat.h: stx_mode, stx_ino, stx_size, seconds and nanoseconds of ctime and mtime, the device.
_FIELDS, _STATX_BYTES = struct.Struct("=28xH2xQQ48xqI4xqI4x8xII"), 256
_MISSING = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG)
_ATTEMPTS = 3  # what is cached may be changing: EAGAIN

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class FileStatus(NamedTuple):
    """Some of what stat(2) tells of a file, under its names; times are ns since 1970."""

    st_mode: int
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


def status(path: str, directory: int | None = None) -> FileStatus:
    """Return what is known of the file that a path leads to, as seen from a directory.

    The path itself is followed as ever; a link of /proc asks nobody. Raises OSError.
    """
    return _statx(_AT_FDCWD if directory is None else directory, path, 0)


def status_of(opened: int) -> FileStatus:
    """Return what is known of an open file; O_PATH suffices. Raises OSError."""
    return _statx(opened, "", _AT_EMPTY_PATH)


def open_cached(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` as seen from a directory by openat2(2), under rules of linux/openat2.h. Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_ATTEMPTS):
        opened = int(
            _libc.syscall(
                ctypes.c_long(_OPENAT2), ctypes.c_long(directory), ctypes.c_char_p(os.fsencode(path)),
                ctypes.c_char_p(how), ctypes.c_long(len(how)),
            )
        )  # fmt: skip
        if opened >= 0:
            return opened
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    if number in _MISSING:
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
    raise OSError(number, os.strerror(number), path)


def _statx(directory: int, path: str, flags: int) -> FileStatus:
    number = errno.ENOSYS
    if _STATX is not None:
        found = ctypes.create_string_buffer(_STATX_BYTES)
        done = _libc.syscall(
            ctypes.c_long(_STATX), ctypes.c_long(directory), ctypes.c_char_p(os.fsencode(path)),
            ctypes.c_long(flags | _AT_STATX_DONT_SYNC), ctypes.c_long(_STATX_BASIC_STATS), found,
        )  # fmt: skip
        if done == 0:
            mode, inode, size, changed, changed_ns, written, written_ns, major, minor = _FIELDS.unpack_from(found.raw)
            device = os.makedev(major, minor)
            return FileStatus(
                mode, device, inode, size, written * 1_000_000_000 + written_ns, changed * 1_000_000_000 + changed_ns
            )
        number = ctypes.get_errno()
    if number not in _MISSING:
        raise OSError(number, os.strerror(number), path)
    old = os.fstat(directory) if flags else os.stat(path, dir_fd=None if directory == _AT_FDCWD else directory)
    return FileStatus(old.st_mode, old.st_dev, old.st_ino, old.st_size, old.st_mtime_ns, old.st_ctime_ns)
