"""Processes that go to the edge of a limit when they are told to: the kernel says where that is.

Run as a script with the name of what to do: it says "ready", and for each line on its standard input it does that as
often as it can, or as the number says, and tells how often it could.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAGE = 4096
_PAGES = 200_000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@contextmanager
def at_edge(what: str, *under: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one, by the words `under`, until the block ends; the block begins when it is ready."""
    command = [*under, sys.executable, "-I", __file__, what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def tried(process: subprocess.Popen[bytes], most: int = 1 << 30) -> int:
    """Let it do it, at most so often; return how often it could."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{most}\n".encode())
    process.stdin.flush()
    return int(process.stdout.readline())


def _thread() -> bool:
    try:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    except RuntimeError:
        return False
    return True


def _on_pages(call: Callable[[int], int], step: int) -> Callable[[], bool]:
    base: int = _libc.mmap(None, _PAGES * PAGE, 1, 0x22, -1, 0)  # PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS
    addresses = iter(range(base + PAGE, base + _PAGES * PAGE, step * PAGE))
    return lambda: call(next(addresses)) == 0


if __name__ == "__main__":
    makers: dict[str, Callable[[], Callable[[], bool]]] = {
        "threads": lambda: _thread,
        "mappings": lambda: _on_pages(lambda address: int(_libc.mprotect(address, PAGE, 0)), 2),  # two more by each
        "locked": lambda: _on_pages(lambda address: int(_libc.mlock(address, PAGE)), 1),
    }
    once = makers[sys.argv[1]]()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        done = 0
        while done < int(line) and once():
            done += 1
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
