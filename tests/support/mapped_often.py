"""A process that maps one page of a file very often, with a long path.

Run as a script: `python -m tests.support.mapped_often DIRECTORY TIMES DEPTH` makes DEPTH directories with the longest
name in each other, prints how often the file in them is mapped, and waits for the end of its standard input.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import running


def main(directory: str, times: int, depth: int) -> None:
    """Map, tell, wait."""
    os.chdir(directory)
    for _ in range(depth):
        os.mkdir("a" * 250)
        os.chdir("a" * 250)
    file = os.open("file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, mmap.PAGESIZE)
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_ssize_t
    size, flags = ctypes.c_size_t(mmap.PAGESIZE), mmap.MAP_PRIVATE
    made = sum(libc.mmap(None, size, mmap.PROT_READ, flags, file, ctypes.c_long(0)) > 0 for _ in range(times))
    print(made, flush=True)
    sys.stdin.read()


@contextmanager
def mapped_often(directory: Path, times: int, depth: int) -> Iterator[int]:
    """Run such a process until the block ends; gives its pid."""
    directory.mkdir()
    with running(sys.executable, "-m", "tests.support.mapped_often", directory, times, depth) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == times
        yield process.pid


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
