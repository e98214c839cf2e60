"""A cgroup's directory: opened once, and known to lie on the cgroup file system with all that is opened in it."""

from __future__ import annotations

import os
from itertools import islice

from gomem.tracer.proc.beneath import open_mount_point, open_within
from gomem.tracer.proc.small_files import decimal, printable, read_bounded

_FILE_BYTES = 1 << 20


class Directory:
    """A cgroup's directory, opened once and known to lie on the cgroup file system, as all that is opened in it.

    The target's own mounts are its to change: a path through them could lead to any file system by now.
    """

    def __init__(self, opened: int) -> None:
        """Take its descriptor over, which is closed with this."""
        self._fd = opened

    @classmethod
    def of_mount(cls, point: str, part: str, device: int) -> Directory:
        """Open the cgroup `part` ("" or "/a/b") of the hierarchy that is mounted at `point`.

        Raises OSError where there is no such directory on that device.
        """
        root = open_mount_point(point, device)
        try:
            return cls(open_within(root, f".{part}", os.O_RDONLY | os.O_DIRECTORY))
        finally:
            os.close(root)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    @property
    def key(self) -> tuple[int, int]:
        """What no other cgroup has, also not one of the same path after this was removed: (device, inode)."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def up(self, levels: int) -> Directory:
        """Open the ancestor that is so many levels up; raises OSError when it is gone."""
        return Directory(open_within(self._fd, "../" * levels or ".", os.O_RDONLY | os.O_DIRECTORY))

    def down(self, name: str) -> Directory:
        """Open the cgroup `name` in this one; raises OSError when it is gone."""
        return Directory(open_within(self._fd, f"./{name}", os.O_RDONLY | os.O_DIRECTORY))

    def names(self, most: int) -> list[str]:
        """Return the names of the cgroups in this one, at most so many, in no order; none when it is gone."""
        try:
            with os.scandir(self._fd) as entries:
                return [entry.name for entry in islice((one for one in entries if one.is_dir()), most)]
        except OSError:
            return []

    @property
    def removed(self) -> bool:
        """Whether the cgroup has been removed since; its files are gone then, and this directory is still open."""
        try:
            os.close(open_within(self._fd, "cgroup.procs", os.O_PATH))
        except OSError:
            return True
        return False

    def numbers(self, name: str) -> dict[str, int]:
        """Return a file of "key number" lines."""
        pairs = (line.partition(" ") for line in self.text(name).split("\n"))
        return {word: number for word, _, value in pairs if (number := decimal(value)) is not None}

    def text(self, name: str) -> str:
        """Return the file's text, "" where this cgroup has none (as the root) or it may not be read."""
        try:
            fd = open_within(self._fd, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        try:
            return printable(read_bounded(fd, _FILE_BYTES)[0])
        except OSError:
            return ""
        finally:
            os.close(fd)

    def number(self, name: str) -> int | None:
        """Return the file's number; None for "max" and for no file."""
        return decimal(self.text(name).strip())

    def keyed(self, name: str, key: str) -> int | None:
        """Return the number behind `key` in a file of "key number" lines."""
        return self.numbers(name).get(key)
