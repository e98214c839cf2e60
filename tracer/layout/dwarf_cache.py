"""Layouts read from DWARF, kept in ${XDG_CACHE_HOME:-~/.cache}/gomem/dwarf: parsing takes ten times as long.

An entry is found by the program's build ids and by the bytes of its debugging sections, so that a program that claims
another one's build id does not get its layout. How they are kept: tracer/machine/entry_cache.py.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

from gomem.tracer import __version__
from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout import catalog, dies, dwarf
from gomem.tracer.layout.dwarf import read_raw_layout
from gomem.tracer.layout.layout import Layout, RawLayout
from gomem.tracer.machine.entry_cache import cache_directory, load_entry, store_entry

_SECTIONS = ("info", "abbrev", "addr")
_PIECE = 1 << 20

Addresses = dict[str, int]


def cached_layout_from_dwarf(exe: Executable, directory: Path | None = None) -> tuple[Layout, Addresses]:
    """Return the layout of the runtime in `exe`, and the link-time address of each global that the layout lists.

    Like `read_raw_layout`, by way of the cache in `directory` (default: the user's). Raises the same errors.
    """
    directory = directory or cache_directory("dwarf")
    key = entry_key(exe) if directory else None
    known = _load(directory, key) if directory and key else None
    raw, addresses = known or read_raw_layout(exe)
    if directory and key and known is None:
        _store(directory, key, raw, addresses)
    return Layout(raw, "dwarf"), addresses


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
    try:
        entry = json.loads(load_entry(path, key) or b"null")
        return cast(RawLayout, entry["layout"]), cast(Addresses, entry["addresses"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _store(path: Path, key: str, raw: RawLayout, addresses: Addresses) -> None:
    store_entry(path, key, json.dumps({"layout": raw, "addresses": addresses}, separators=(",", ":")).encode())
