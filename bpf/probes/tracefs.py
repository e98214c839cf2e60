"""The ids and formats of tracepoints, with or without a mounted tracefs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from types import TracebackType

from gomem.bpf import syscalls
from gomem.tracer.errors import BackendUnavailable, NotPermitted
from gomem.tracer.machine.rights import Right, remedy

MOUNT_POINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_LARGEST = 1 << 16  # bytes of a format file that are read
_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);")
_SYMBOL = re.compile(r'\{\s*(\d+),\s*"(\w+)"\s*\}')

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """What a tracepoint is for perf_event_open(2), and how its record lies in memory.

    `fields`: offset and size in bytes by name. `symbols`: the numbers behind the names in its print format.
    """

    id: int
    fields: dict[str, tuple[int, int]]
    symbols: dict[str, int]


class Tracefs:
    """An open tracefs: the mounted one, else a private instance that is visible nowhere and ends with us.

    Use as a context manager. Raises NotPermitted or BackendUnavailable when neither can be had.
    """

    def __init__(self, mount_points: tuple[str, ...] = MOUNT_POINTS) -> None:
        self._root = _open(mount_points)

    def __enter__(self) -> Tracefs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; a private instance is gone then. Idempotent."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def tracepoint(self, group: str, name: str) -> Tracepoint | None:
        """Return a tracepoint, or None if this kernel has none of that name."""
        try:
            return parse_format(self._read(f"events/{group}/{name}/format"))
        except FileNotFoundError:
            return None

    def _read(self, path: str) -> str:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root), "rb") as file:
            return file.read(_LARGEST).decode(errors="replace")


def parse_format(text: str) -> Tracepoint | None:
    """Take a tracepoint's format file apart (Documentation/trace/events.rst); None if it is none."""
    number = re.search(r"^ID:\s*(\d+)$", text, re.MULTILINE)
    if number is None:
        return None
    fields = {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}
    symbols = {name: int(value) for value, name in _SYMBOL.findall(text)}
    return Tracepoint(int(number[1]), fields, symbols)


def _open(mount_points: tuple[str, ...]) -> int:
    for path in mount_points:
        try:
            root = os.open(path, _DIRECTORY)
        except OSError:
            continue
        try:
            os.close(os.open("events", _DIRECTORY, dir_fd=root))  # access(2) asks without our capabilities
        except OSError:
            os.close(root)
            continue
        return root
    try:
        return syscalls.detached_mount("tracefs")
    except PermissionError as error:
        raise NotPermitted(
            f"no tracefs that gomem may read is mounted, and it may not mount one: {error.strerror}",
            f"{remedy(Right.MOUNT)}; or mount it: mount -t tracefs nodev /sys/kernel/tracing",
        ) from error
    except OSError as error:
        raise BackendUnavailable(f"this kernel has no tracefs: {error.strerror}", "needs CONFIG_TRACING") from error
