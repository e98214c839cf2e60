"""A debugger as small as one can be: `python -m tests.support.debugger PID ADDRESS...` sets breakpoints (int3) there.

It traces the main thread, prints a line when the breakpoints are in, and at the next line of its input puts back what
was there before it came, as gdb and delve do, and leaves. Source: ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_PEEK, _POKE, _CONT, _DETACH, _SEIZE, _INTERRUPT = 1, 4, 7, 17, 0x4206, 0x4207
_EVENT_STOP = 128
_INT3 = b"\xcc"
_ROOT = Path(__file__).resolve().parents[2]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Debugger:
    """The breakpoints in a process whose code others may have changed, too."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def leave(self) -> None:
        """Take the breakpoints out, and go."""
        self._process.communicate(b"\n")
        assert self._process.returncode == 0


@contextmanager
def debugged(pid: int, addresses: Sequence[int]) -> Iterator[Debugger]:
    """Trace a process; the block begins when there are breakpoints at the addresses, and ends without the debugger."""
    command = [sys.executable, "-m", "tests.support.debugger", str(pid), *map(str, addresses)]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Debugger(process)
    finally:
        process.kill()
        process.communicate()


def probed(pid: int) -> list[int]:
    """Return the addresses at which a process's own program has an int3 that its file has not: those of uprobes."""
    found: list[int] = []
    with open(f"/proc/{pid}/mem", "rb") as memory, open(f"/proc/{pid}/exe", "rb") as program:
        name = os.readlink(f"/proc/{pid}/exe")
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights, offset, *rest = line.split(maxsplit=5)
            if "x" not in rights or rest[-1] != name:
                continue
            begin, end = (int(word, 16) for word in where.split("-"))
            memory.seek(begin)
            program.seek(int(offset, 16))
            before = np.frombuffer(program.read(end - begin), np.uint8)
            now = np.frombuffer(memory.read(before.size), np.uint8)
            found += (begin + np.flatnonzero(now != before)).tolist()
    return found


def _ptrace(request: int, pid: int, address: int = 0, value: int = 0) -> int:
    ctypes.set_errno(0)
    result = int(_libc.ptrace(request, pid, address, value))
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), "ptrace")
    return result


def _swap(pid: int, address: int, byte: bytes) -> bytes:
    """Write one byte of the process's code; return the one that was there."""
    word = _ptrace(_PEEK, pid, address).to_bytes(8, "little", signed=True)
    _ptrace(_POKE, pid, address, int.from_bytes(byte + word[1:], "little", signed=False))
    return word[:1]


def _stop(pid: int) -> None:
    _ptrace(_INTERRUPT, pid)
    while True:
        _, status = os.waitpid(pid, 0)
        if status >> 16 == _EVENT_STOP:
            return
        _ptrace(_CONT, pid, 0, os.WSTOPSIG(status))


def _let_run(pid: int) -> None:
    """Let it run, with the signals that come for it, until a line comes in."""
    _ptrace(_CONT, pid)
    while not select.select([0], [], [], 0.01)[0]:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found and os.WIFSTOPPED(status):
            _ptrace(_CONT, pid, 0, 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status))


def main() -> None:
    """Set, wait, and put back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid, *addresses = map(int, sys.argv[1:])
    _ptrace(_SEIZE, pid)
    _stop(pid)
    before = {address: _swap(pid, address, _INT3) for address in addresses}
    print("ready", flush=True)
    _let_run(pid)
    _stop(pid)
    for address, byte in before.items():
        _swap(pid, address, byte)
    _ptrace(_DETACH, pid)


if __name__ == "__main__":
    main()
