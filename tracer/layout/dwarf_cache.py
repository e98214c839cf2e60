"""Layouts read from DWARF, kept in ${XDG_CACHE_HOME:-~/.cache}/gomem/dwarf: parsing takes ten times as long.

An entry is found by the program's build ids and by the bytes of its debugging sections, so that a program that claims
another one's build id does not get its layout. Entries are replaced by rename: readers see a whole one or none, however
many of us run. Nothing here fails: what cannot be read or written is as if there were no cache, and so is a directory
in which somebody else has a say (tracer/machine/private_directory.py): root may run with another user's HOME. What is
deleted has the name of an entry and is our own.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

from gomem.tracer import __version__
from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout import catalog, dies, dwarf
from gomem.tracer.layout.dwarf import read_raw_layout
from gomem.tracer.layout.layout import Layout, RawLayout
from gomem.tracer.machine.private_directory import open_private

MOST_ENTRIES = 64
LARGEST_ENTRY = 8 << 20
_OURS = 2  # the last names of its path: no link in their place leads anywhere
_FORGOTTEN = 3600.0  # seconds after which a half-written file has no writer any more
_ENTRY, _HALF_WRITTEN = re.compile(r"[0-9a-f]{64}"), re.compile(r"\.new-\w+")
_SECTIONS = ("info", "abbrev", "addr")
_PIECE = 1 << 20

Addresses = dict[str, int]


def cached_layout_from_dwarf(exe: Executable, directory: Path | None = None) -> tuple[Layout, Addresses]:
    """Return the layout of the runtime in `exe`, and the link-time address of each global that the layout lists.

    Like `read_raw_layout`, by way of the cache in `directory` (default: the user's). Raises the same errors.
    """
    directory = directory or cache_directory()
    key = entry_key(exe) if directory else None
    known = _load(directory, key) if directory and key else None
    raw, addresses = known or read_raw_layout(exe)
    if directory and key and known is None:
        _store(directory, key, raw, addresses)
    return Layout(raw, "dwarf"), addresses


def cache_directory() -> Path | None:
    """Return where the entries are, whether or not it exists; None for somebody without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is invalid, says the XDG Base Directory Specification, and to be ignored.
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return Path(base) / "gomem" / "dwarf"


def entry_key(exe: Executable) -> str | None:
    """Return the name of a program's entry, None if it has no build id. Raises BinaryError for a truncated file."""
    go_id, gnu_id = exe.go_build_id, exe.gnu_build_id
    if not go_id and not gnu_id:
        return None
    digest = hashlib.sha256(_reader_version())
    for word in (exe.machine, go_id or "", gnu_id or "", str(exe.file_size)):
        digest.update(word.encode() + b"\0")
    for name in _SECTIONS:
        section = exe.section(f".debug_{name}") or exe.section(f".zdebug_{name}")
        if section is None or not section.size:
            continue
        digest.update(f"{section.name} {section.flags} {section.size}\0".encode())
        for at in range(0, section.size, _PIECE):
            digest.update(exe.read_at(section.offset + at, min(_PIECE, section.size - at)))
    return digest.hexdigest()


@cache
def _reader_version() -> bytes:
    """Return a digest of the code that reads DWARF: what another version of it read may be less or wrong."""
    digest = hashlib.sha256()
    digest.update(__version__.encode())
    for module in (catalog, dies, dwarf):
        # Installed without sources, a version's code is what its number says.
        with suppress(OSError):
            digest.update(inspect.getsource(module).encode())
    return digest.digest()


def _load(path: Path, key: str) -> tuple[RawLayout, Addresses] | None:
    """Return an entry if it is whole, our own, and nobody else could have written it."""
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
        entry = json.loads(content)
        return cast(RawLayout, entry["layout"]), cast(Addresses, entry["addresses"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _store(path: Path, key: str, raw: RawLayout, addresses: Addresses) -> None:
    content = json.dumps({"layout": raw, "addresses": addresses}, separators=(",", ":")).encode()
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
