"""What a process returns to the kernel, as strace sees it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The result may be on a line of its own, when calls of two threads overlap.
_RETURNED = re.compile(r"madvise\(0x[0-9a-f]+, (\d+), MADV_(?:DONTNEED|FREE)")


@contextmanager
def madvise_log(pid: int, log: Path) -> Iterator[None]:
    """Let strace write down each madvise of all threads of a process."""
    words = ["strace", "-f", "-e", "trace=madvise", "-e", "signal=none", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()


def returned(log: Path) -> list[int]:
    """Return the bytes of each call that returned memory."""
    said = log.read_text()
    assert " = -1" not in said
    return [int(size) for size in _RETURNED.findall(said)]
