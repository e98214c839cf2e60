"""A directory that is ours alone: opened so that nobody else can have led us somewhere, or could lead us later.

Whoever owns a directory on the way, or may write into it, can put a link in the place of what is below. So each must
belong to us or to root, and be writable for nobody else (or sticky, as /tmp is, where names belong to their owners).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_MOST_LINKS = 40  # as the kernel follows: include/linux/namei.h MAXSYMLINKS
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(OSError):
    """Somebody else has a say in where the path leads, or what is there."""


def open_private(path: Path, *, create: bool, ours: int = 1, adopt: bool = False) -> int:
    """Open a directory and return its fd, which the caller closes; with `create` it is made if it is missing.

    The last `ours` directories are no links, whoever made them. The very last one belongs to us, and nobody else may
    write into it: with `adopt` that is seen to where it is ours and empty, as a volume that was just made for us
    (Kubernetes' emptyDir has mode 0777). Raises NotPrivate, or OSError as open(2) and mkdir(2) do.
    """
    walked = path.parents[ours - 1]
    fd = _open_trusted(walked, create, _MOST_LINKS)
    for name in path.parts[-ours:]:
        try:
            _check(os.fstat(fd), walked)
            below = _enter(fd, name, create)
        finally:
            os.close(fd)
        fd, walked = below, walked / name
    if not _is_ours_alone(fd) and not (adopt and _adopted(fd)):
        os.close(fd)
        raise NotPrivate(f"{path} belongs to another user, or others may write into it")
    return fd


def _is_ours_alone(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def _adopted(fd: int) -> bool:
    """Take everybody else's rights away from an empty directory of ours; tell whether it was one."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or os.listdir(fd):
        return False
    os.fchmod(fd, 0o700)
    if not os.listdir(fd):  # nobody else was faster, and nobody else can come now
        return True
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    return False


def _open_trusted(path: Path, create: bool, links: int) -> int:
    """Open the absolute `path` name by name. Links are followed where only root or we can have put them."""
    fd = os.open(path.anchor, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    walked = Path(path.anchor)
    try:
        _check(os.fstat(fd), walked)
        for name in path.parts[1:]:
            below = _enter_or_follow(fd, walked, name, create, links)
            os.close(fd)
            fd, walked = below, walked / name
            _check(os.fstat(fd), walked)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _enter_or_follow(parent: int, walked: Path, name: str, create: bool, links: int) -> int:
    try:
        link = os.readlink(name, dir_fd=parent)
    except OSError:
        return _enter(parent, name, create)
    if links == 0 or os.lstat(name, dir_fd=parent).st_uid not in (0, os.geteuid()):
        raise NotPrivate(f"{walked / name} is a link that another user made")
    return _open_trusted(Path(os.path.normpath(walked / link)), create, links - 1)


def _enter(parent: int, name: str, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another of us was faster
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, flags, dir_fd=parent)


def _check(status: os.stat_result, path: Path) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise NotPrivate(f"{path} belongs to another user")
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise NotPrivate(f"others may write into {path}")
