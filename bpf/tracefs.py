"""The ids of tracepoints, with or without a mounted tracefs."""

from __future__ import annotations

import os
from types import TracebackType

from bpf import syscalls
from tracer.errors import BackendUnavailable, NotPermitted

MOUNT_POINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


class Tracefs:
    """An open tracefs: the mounted one, else a private instance that is visible nowhere and ends with us.

    Use as a context manager. Raises NotPermitted or BackendUnavailable when neither can be had.
    """

    def __init__(self, mount_points: tuple[str, ...] = MOUNT_POINTS) -> None:
        self._root, self.origin = _open(mount_points)

    def __enter__(self) -> Tracefs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; a private instance is gone then."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def tracepoint_id(self, group: str, name: str) -> int | None:
        """Return the id that perf_event_open(2) wants, or None if this kernel has no such tracepoint."""
        try:
            fd = os.open(f"events/{group}/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            return None
        with os.fdopen(fd) as file:
            return int(file.read(32))


def _open(mount_points: tuple[str, ...]) -> tuple[int, str]:
    for path in mount_points:
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        if os.access("events/syscalls", os.R_OK | os.X_OK, dir_fd=root):
            return root, path
        os.close(root)
    try:
        return syscalls.detached_mount("tracefs"), "private"
    except PermissionError as error:
        raise NotPermitted(
            "tracefs is not mounted and may not be mounted: " + str(error.strerror),
            "mount it (mount -t tracefs nodev /sys/kernel/tracing) or give CAP_SYS_ADMIN",
        ) from error
    except OSError as error:
        raise BackendUnavailable(
            f"this kernel has no tracefs: {error.strerror}", "use --backend strace or procfs"
        ) from error
