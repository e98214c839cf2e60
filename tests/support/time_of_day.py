"""A time of day that a test sets, for one program: that of the machine is everybody's."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.c_programs import compiled


class TimeOfDay:
    """What programs run `under` it take for the time of day."""

    def __init__(self, shared: mmap.mmap, path: Path) -> None:
        library = compiled("timeofday.c", "-shared", "-fPIC")
        self.under = ("env", f"LD_PRELOAD={library}", f"TIME_OF_DAY={path}")
        self._shared = shared

    def set_ahead(self, seconds: int) -> None:
        """Let it be so far ahead of the machine's from now on."""
        self._shared[:8] = struct.pack("=q", seconds)


@contextmanager
def time_of_day(directory: Path) -> Iterator[TimeOfDay]:
    """Make one that is right; its file is in the directory."""
    path = directory / "time-of-day"
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        yield TimeOfDay(shared, path)
