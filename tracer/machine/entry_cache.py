"""Files of our own, each found by a key, in ${XDG_CACHE_HOME:-~/.cache}/gomem/NAME: what took long to find out.

Entries are replaced by rename: readers see a whole one or none, however many of us run. Nothing here fails: what cannot
be read or written is as if there were no cache, and so is a directory in which somebody else has a say
(tracer/machine/private_directory.py): root may run with another user's HOME. What is deleted has the name of an entry
and is our own.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gomem.tracer.machine.private_directory import open_private

MOST_ENTRIES = 64
LARGEST_ENTRY = 8 << 20
_OURS = 2  # the last names of its path: no link in their place leads anywhere
_FORGOTTEN = 3600.0  # seconds after which a half-written file has no writer any more
_ENTRY, _HALF_WRITTEN = re.compile(r"[0-9a-f]{64}"), re.compile(r"\.new-\w+")


def cache_directory(name: str) -> Path | None:
    """Return where the entries of a cache are, whether or not it exists; None for somebody without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is invalid, says the XDG Base Directory Specification, and to be ignored.
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return Path(base) / "gomem" / name


def load_entry(path: Path, key: str) -> bytes | None:
    """Return an entry's content if it is whole, our own, and nobody else could have written it. `key`: a SHA-256."""
    try:
        directory = open_private(path, create=False, ours=_OURS)
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(key, flags, dir_fd=directory)
        finally:
            os.close(directory)
    except OSError:
        return None
    try:
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022 or status.st_size > LARGEST_ENTRY:
                return None
            checksum, _, content = file.read(LARGEST_ENTRY).partition(b"\n")
            if hashlib.sha256(key.encode() + content).hexdigest().encode() != checksum:
                return None
            # The time of last use, by which the cache is pruned.
            with suppress(OSError):
                os.utime(fd)
        return content
    except OSError:
        return None


def store_entry(path: Path, key: str, content: bytes) -> None:
    """Keep an entry, unless it is too large; those that were not used for longest make room."""
    checksum = hashlib.sha256(key.encode() + content).hexdigest().encode()
    if len(checksum) + 1 + len(content) > LARGEST_ENTRY:
        return
    with suppress(OSError):
        directory = open_private(path, create=True, ours=_OURS)
        try:
            _write(directory, key, checksum + b"\n" + content)
            _prune(directory)
        finally:
            os.close(directory)


def _write(directory: int, key: str, content: bytes) -> None:
    name = f".new-{secrets.token_hex(8)}"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.replace(name, key, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _prune(directory: int) -> None:
    """Remove the entries that were not used for longest, and what was left half-written."""
    by_age = sorted(_own_files(directory), reverse=True)
    entries = [name for _, name in by_age if _ENTRY.fullmatch(name)]
    now = time.time()
    stale = [name for used, name in by_age if _HALF_WRITTEN.fullmatch(name) and now - used > _FORGOTTEN]
    for name in (*entries[MOST_ENTRIES:], *stale):
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _own_files(directory: int) -> Iterator[tuple[float, str]]:
    with os.scandir(directory) as listing:
        for entry in listing:
            # Another of us may have pruned it just now.
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    yield status.st_mtime, entry.name
