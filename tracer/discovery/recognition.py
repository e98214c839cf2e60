"""Whether an executable is a Go program, told from a few reads of its file and remembered.

What decides is what cmd/link leaves in every program (tracer/binary/go_marks.py). That decides of 32-bit programs, too:
gomem does not read them, and whoever looks for one shall find that out.

The answer is remembered by the file's identity, also "no", and by its build id: one image on many layers or nodes of
a file system is many files and one program.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from gomem.tracer.binary.elf32 import ThirtyTwoBit
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import go_mark
from gomem.tracer.errors import BinaryError, NoAnswer, NotPermitted
from gomem.tracer.proc.unasked import FileStatus, status

MOST_FILES = 4096
_LONGEST_ID = 256


class ProgramKind(StrEnum):
    """What an executable is to discovery."""

    GO = "go"
    NOT_GO = "not_go"
    UNREADABLE = "unreadable"  # the kernel does not let us look
    SILENT = "silent"  # its file system does not answer


@dataclass(frozen=True, slots=True)
class Recognized:
    """What was found out about an executable; `why` says in a few words what decided."""

    kind: ProgramKind
    why: str
    build_id: str | None = None  # of Go, else of the GNU linker


class FileKey(NamedTuple):
    """One state of one file. Unlike mtime, ctime cannot be set, so that an inode used anew is another key."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def file_key(status: FileStatus) -> FileKey:
    """Return the key of the file that was described."""
    return FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Latest(Generic[K, V]):
    """A mapping that keeps the `most` entries that were asked for last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value, which is now the one asked for last; None for none."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep the value; the one that was not asked for longest goes when there are too many."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self.most:
                self._entries.popitem(last=False)


class Recognition:
    """Recognises executables, for any thread."""

    def __init__(self, most: int = MOST_FILES) -> None:
        self._files: Latest[FileKey, Recognized] = Latest(most)
        self._programs: Latest[str, Recognized] = Latest(most)
        self.files_read = 0  # how many executables had to be opened
        self.times_silent = 0  # how often one could not be read because its file system does not answer

    def __len__(self) -> int:
        """Return how many files are remembered."""
        return len(self._files)

    def known(self, key: FileKey) -> Recognized | None:
        """Return what is remembered of a file, None if it was not looked at."""
        return self._files.get(key)

    def of_process(self, pid: int, key: FileKey) -> Recognized:
        """Return what is known of the file `key` that the process executes; reads it if that is nothing."""
        recognized = self.known(key)
        if recognized is None:
            _, recognized = self.recognize(f"/proc/{pid}/exe")
            # It may have executed another program meanwhile: then this is what is remembered of the first, if anything.
            recognized = self.known(key) or recognized
        return recognized

    def recognize(self, path: str) -> tuple[FileKey | None, Recognized]:
        """Open and recognise the executable at `path`, usually /proc/PID/exe; never raises.

        The key is that of the file which was read, None where it could not be opened.
        """
        self.files_read += 1
        try:
            exe = Executable.open(path)
        except NotPermitted as why:
            return None, Recognized(ProgramKind.UNREADABLE, why.what)
        except NoAnswer as why:
            return None, self._silent(why)
        except BinaryError as why:
            return self._unusable(path, why)
        with exe:
            key = file_key(exe.status)
            recognized = self._by_build_id(exe)
        if exe.no_answer is not None:
            return None, self._silent(exe.no_answer)
        self._files.put(key, recognized)
        return key, recognized

    def _silent(self, why: NoAnswer) -> Recognized:
        self.times_silent += 1
        return Recognized(ProgramKind.SILENT, why.what)

    def _by_build_id(self, exe: Executable) -> Recognized:
        build_id = _build_id(exe)
        if build_id is None:
            return examine(exe, None)
        recognized = self._programs.get(build_id)
        if recognized is None:
            recognized = examine(exe, build_id)
            self._programs.put(build_id, recognized)
        return recognized

    def _unusable(self, path: str, why: BinaryError) -> tuple[FileKey | None, Recognized]:
        """Answer for a file that is no ELF file that gomem reads, or that is gone by now."""
        is_go = isinstance(why, ThirtyTwoBit) and why.go_version
        recognized = Recognized(ProgramKind.GO if is_go else ProgramKind.NOT_GO, why.what)
        try:
            key = file_key(status(path))
        except OSError:
            return None, recognized
        self._files.put(key, recognized)
        return key, recognized


def _build_id(exe: Executable) -> str | None:
    try:
        found = exe.go_build_id or exe.gnu_build_id
    except BinaryError:
        return None
    # The kind of program is part of the key: a C program can carry any bytes as its GNU build id.
    return f"{'go' if exe.go_build_id else 'gnu'}:{found}" if found and len(found) <= _LONGEST_ID else None


def examine(exe: Executable, build_id: str | None) -> Recognized:
    """Tell what an open executable is; reads only its headers, and the data segment if it has no sections."""
    plain = build_id.partition(":")[2] if build_id else None
    if build_id is not None and build_id.startswith("go:"):
        return Recognized(ProgramKind.GO, "it has a Go build id", plain)
    mark = go_mark(exe)
    if mark is not None:
        return Recognized(ProgramKind.GO, mark, plain)
    return Recognized(ProgramKind.NOT_GO, "it has neither Go sections nor build information", plain)
