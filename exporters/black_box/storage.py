"""The directory of black boxes: each is written whole or not at all, and the oldest go when there is no more room.

Everything is reached from one descriptor of the directory, name by name, and no link is followed. What has not the
name of a black box, or holds anything else than its files, is neither counted nor removed: it is somebody else's.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gomem.exporters.black_box.contents import FILES
from gomem.tracer.errors import GomemError, NotPermitted
from gomem.tracer.machine.private_directory import NotPrivate, open_private

USUAL_BYTES = 64 << 20
USUAL_COUNT = 200
_BLOCK = 4096  # what a file takes is a multiple of it
_LARGEST_NAME = 64  # characters of the program's
_MOST_ENTRIES = 100_000  # names in the directory that are looked at
# NAME-PID-TIME; one that is being written, or removed, has a dot in front
_BOX = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{_LARGEST_NAME - 1}}}-[0-9]{{1,10}}-([0-9]{{8}}T[0-9]{{6}}Z)")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotKept(GomemError):
    """A black box is not within the bounds."""


@dataclass(frozen=True, slots=True, order=True)
class _Box:
    """One that is there; `size` in bytes, as the file system counts it."""

    time: str
    name: str
    size: int


def name_of(program: str, pid: int, time: str) -> str:
    """Return the name of a black box: the program's, its pid, and `time`, as in 20260301T120000Z."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", program[:_LARGEST_NAME]).lstrip(".-") or "unknown"
    return f"{safe}-{pid}-{time}"


class Storage:
    """Writes black boxes. For one thread; open it first, close it."""

    def __init__(self, path: Path, most_bytes: int = USUAL_BYTES, most_boxes: int = USUAL_COUNT) -> None:
        """`path`: the directory, made where there is none; `most_bytes` and `most_boxes` bound what is kept in it."""
        self.path = path.absolute()
        self._most_bytes = most_bytes
        self._most_boxes = most_boxes
        self._directory = -1

    def open(self) -> None:
        """Open the directory, and remove what was left half-written. Raises GomemError that says what to do."""
        fix = "give a directory of gomem's own, in which nobody else may write: --black-box DIR"
        try:
            self._directory = open_private(self.path, create=True, adopt=True)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=self._directory, effective_ids=True):
                raise PermissionError(0, "it may not be written to")
        except NotPrivate as error:
            raise NotPermitted(f"black boxes cannot be kept in {self.path}: {error}", fix) from None
        except OSError as error:
            raise GomemError(f"black boxes cannot be kept in {self.path}: {error.strerror}", fix) from None
        for name in self._names("."):
            with suppress(OSError):
                self._remove(name)

    def close(self) -> None:
        """Let go of the directory; idempotent."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def save(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write a black box of that name and return where it is.

        Raises NotKept where it does not fit, and OSError; there is nothing of it then, and all others are still there.
        """
        self._make_room(sum(_blocks(len(content)) for content in files.values()) + _BLOCK)
        half = f".{name}"
        try:
            os.mkdir(half, 0o700, dir_fd=self._directory)
            with self._opened(half) as directory:
                for file, content in files.items():
                    _write(directory, file, content)
                os.fsync(directory)
            os.rename(half, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            with suppress(OSError):
                self._remove(half)
            raise
        with suppress(OSError):  # it is there already, and some file systems cannot do it
            os.fsync(self._directory)
        return self.path / name

    def _make_room(self, size: int) -> None:
        if size > self._most_bytes:
            raise NotKept(f"it has {size >> 10} KB, more than all may have", "a larger --black-box-bytes helps")
        boxes = sorted(self._boxes())
        held = sum(box.size for box in boxes)
        while boxes and (held + size > self._most_bytes or len(boxes) >= self._most_boxes):
            oldest = boxes.pop(0)
            self._begin_to_remove(oldest.name)
            held -= oldest.size

    def _begin_to_remove(self, name: str) -> None:
        """Remove a black box; whoever looks meanwhile sees all of it or nothing."""
        gone = f".{name}"
        os.rename(name, gone, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._remove(gone)

    def _remove(self, name: str) -> None:
        with self._opened(name) as directory:
            for file in FILES:
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
        os.rmdir(name, dir_fd=self._directory)

    def _boxes(self) -> Iterator[_Box]:
        for name in self._names():
            match = _BOX.fullmatch(name)
            size = self._size(name)
            if match is not None and size is not None:
                yield _Box(match[1], name, size)

    def _names(self, before: str = "") -> Iterator[str]:
        """Yield the names of directories that are those of black boxes, with `before` in front."""
        with os.scandir(self._directory) as entries:
            found = [entry.name for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False)]
        for name in found:
            if name.startswith(before) and _BOX.fullmatch(name.removeprefix(before)):
                yield name

    def _size(self, name: str) -> int | None:
        """Return the bytes of a black box on the disk; None where that is none, or holds what is not ours."""
        size = _BLOCK
        try:
            with self._opened(name) as directory, os.scandir(directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.name not in FILES or not stat.S_ISREG(status.st_mode):
                        return None
                    size += _blocks(status.st_size)
        except OSError:
            return None
        return size

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        directory = os.open(name, _DIRECTORY, dir_fd=self._directory)
        try:
            yield directory
        finally:
            os.close(directory)


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _write(directory: int, name: str, content: bytes) -> None:
    descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
