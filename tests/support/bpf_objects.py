"""The BPF programs, maps and links of the whole machine, as the kernel numbers them (bpf(2): BPF_*_GET_NEXT_ID).

Run as a script with the number of entries and their size, it makes a map, holds it open twice, and stands still.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEXT_ID = {"prog_id": 11, "map_id": 12, "link_id": 31}
_SYSCALL = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)

Objects = frozenset[tuple[str, int]]  # what it is, and its id


def objects() -> Objects:
    """Return all of them. Needs CAP_SYS_ADMIN."""
    return frozenset((what, one) for what, command in _NEXT_ID.items() for one in _ids(command))


def held_by(pid: int) -> Objects:
    """Return those that a process has file descriptors of (proc_pid_fdinfo(5))."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except FileNotFoundError:  # closed meanwhile
            continue
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in _NEXT_ID:
                found.add((name, int(value)))
    return frozenset(found)


def _ids(command: int) -> list[int]:
    found: list[int] = []
    attributes = ctypes.create_string_buffer(12)
    while True:
        struct.pack_into("<III", attributes, 0, found[-1] if found else 0, 0, 0)
        if _libc.syscall(_SYSCALL[os.uname().machine], command, attributes, len(attributes)) < 0:
            number = ctypes.get_errno()
            if number == errno.ENOENT:
                return found
            raise OSError(number, os.strerror(number))
        found.append(struct.unpack_from("<I", attributes, 4)[0])


@contextmanager
def map_holder(entries: int, value: int) -> Iterator[int]:
    """Run a process that holds an array map open twice; gives its pid. Needs CAP_BPF."""
    with subprocess.Popen(
        [sys.executable, __file__, str(entries), str(value)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"made\n"
            yield process.pid
        finally:
            process.kill()


def _make_array(entries: int, value: int) -> int:
    attributes = ctypes.create_string_buffer(struct.pack("<IIIII", 2, 4, value, entries, 0), 72)  # BPF_MAP_TYPE_ARRAY
    fd: int = _libc.syscall(_SYSCALL[os.uname().machine], 0, attributes, len(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_MAP_CREATE")
    return fd


if __name__ == "__main__":
    os.dup(_make_array(int(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write("made\n")
    sys.stdout.flush()
    sys.stdin.read()
