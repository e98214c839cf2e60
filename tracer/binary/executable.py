"""An executable file, held open: its segments, sections, notes, symbols and relocated pointers.

The file is read by pread, never mapped: a mapped file that somebody truncates kills the reader with SIGBUS. Where its
file system is served by others, who may never answer, it is read apart from this process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary import elf
from gomem.tracer.binary.elf import Malformed, Section, Segment
from gomem.tracer.binary.elf32 import thirty_two_bit
from gomem.tracer.binary.names import rows_named
from gomem.tracer.errors import BinaryError, NoAnswer, NotPermitted
from gomem.tracer.machine.rights import remedy_for, remedy_for_file
from gomem.tracer.proc.served import server_of
from gomem.tracer.proc.unasked import status, status_of
from gomem.tracer.process.guardian import described
from gomem.tracer.process.served_file import ServedFile

__all__ = ["Executable", "Section", "Segment"]

_DT_RELA, _DT_RELASZ = 7, 8
# R_X86_64_RELATIVE and R_AARCH64_RELATIVE: base address plus addend.
_RELATIVE = {"amd64": 8, "arm64": 1027}
_RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_NT_GNU_BUILD_ID, _NT_GO_BUILD_ID = 3, 4
_MAX_NOTES = 1 << 16
_MAX_INTERPRETER = 4096
# Several times what the largest Go programs have; sizes in a sparse file cost its maker nothing.
MAX_READ = 1 << 29
_MAX_TABLE = 1 << 27
SCAN_CHUNK = 1 << 20


class Executable:
    """An open ELF executable; a context manager.

    All addresses are link-time virtual addresses: for a position-independent file add the load bias.
    Every method raises BinaryError where the file is truncated or corrupt.
    """

    def __init__(self, path: str, fd: int, served: str | None = None) -> None:
        """Take over `fd` (closed by `close`); BinaryError when it is no usable ELF file, NoAnswer.

        `served`: the kind of its file system if others serve that; `fd` may be opened with O_PATH then.
        """
        self.path = path
        self.fd = fd
        self.served = served
        self.in_memory = False  # it is our copy of what a process has in its memory, and no file of the process
        self.no_answer: NoAnswer | None = None  # when a read had to be given up
        try:
            self.status = status_of(fd)
            if not stat.S_ISREG(self.status.st_mode):
                raise self.error("not a regular file")
            self._apart = ServedFile(fd, _pid_in(path)) if served else None
        except OSError as why:
            raise self.error(f"looking at it failed: {why.strerror}") from why
        self.file_size = self.status.st_size
        try:
            self._read_headers()
        except BaseException:
            if self._apart is not None:
                self._apart.close()
            raise

    def _read_headers(self) -> None:
        try:
            self._header = elf.read_header(self._pread, self.file_size)
            self._program_headers = elf.read_segments(self._pread, self._header, self.file_size)
            self.sections: tuple[Section, ...] = elf.read_sections(self._pread, self._header, self.file_size)
        except Malformed as why:
            other = self.no_answer or thirty_two_bit(self.path, self._pread, self.file_size)
            raise other or self.error(str(why)) from why
        loads = (segment for segment in self._program_headers if segment.type == elf.PT_LOAD)
        self.segments: tuple[Segment, ...] = tuple(sorted(loads, key=lambda segment: segment.address))
        self.machine: str = self._header.machine
        self.pie: bool = self._header.type == elf.ET_DYN

    @classmethod
    def open(cls, path: str | os.PathLike[str], pid: int = 0) -> Executable:
        """Open `path`, usually /proc/PID/exe: the descriptor keeps a deleted or replaced file readable.

        `pid`: a process that sees the file system, where the path does not name one.

        Raises NotPermitted where the kernel refuses, NoAnswer where its file system does not answer, BinaryError for
        everything else.
        """
        text = os.fspath(path)
        try:
            fd, served = _opened(text, pid or _pid_in(text))
        except PermissionError as why:
            raise NotPermitted(
                f"cannot read the executable {text}: {why.strerror}",
                _remedy(text),
            ) from why
        except OSError as why:
            raise BinaryError(f"cannot read the executable {text}: {why.strerror}") from why
        except ValueError as why:
            raise BinaryError(f"cannot read the executable {text!r}: {why}") from why
        try:
            return cls(text, fd, served)
        except BaseException:
            _close(fd)
            raise

    def forget_tables(self) -> None:
        """Let go of what was kept for speed alone; it is read again when it is asked for."""
        for name in ("_relocations", "elf"):
            self.__dict__.pop(name, None)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self.fd >= 0:
            if self._apart is not None:
                self._apart.close()
            _close(self.fd)
            self.fd = -1

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def error(self, why: str) -> BinaryError:
        """Return (not raise) the BinaryError that names this file."""
        return BinaryError(
            f"cannot use the executable {self.path}: {why}",
            "compare the file with the one that was built (sha256sum): it may be cut, packed or damaged",
        )

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes, at most MAX_READ, at the file offset."""
        if size > MAX_READ:
            raise self.error(f"{size} bytes in one piece")
        try:
            return self._pread(offset, size)
        except Malformed as why:
            raise self.error(str(why)) from why

    def file_offset(self, address: int) -> int:
        """Return where in the file the byte of a link-time address stands."""
        segment = self._segment(address)
        return segment.offset + address - segment.address

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes at a link-time address, as the file has them (see `read_relocated`)."""
        segment = self._segment(address)
        if size > segment.address + segment.file_size - address:
            raise self.error(f"{size} bytes at {address:#x} reach beyond their segment")
        return self.read_at(segment.offset + address - segment.address, size)

    def read_up_to(self, address: int, size: int) -> bytes:
        """Return the bytes at a link-time address, fewer than `size` where the segment ends before."""
        segment = self._segment(address)
        return self.read(address, min(size, segment.address + segment.file_size - address))

    def read_relocated(self, address: int, size: int) -> bytes:
        """Return what `read` does, with the relative relocations of a PIE file applied (link-time values)."""
        raw = self.read(address, size)
        offsets, addends = self._relocations
        first, last = np.searchsorted(offsets, np.array([address, address + size], dtype=np.uint64))
        if first == last:
            return raw
        places = (offsets[first:last] - np.uint64(address)).astype(np.int64)
        usable = places <= size - 8
        patched = np.frombuffer(bytearray(raw), dtype=np.uint8)
        values = addends[first:last][usable].astype("<u8")
        patched[places[usable][:, None] + np.arange(8)] = values.view(np.uint8).reshape(-1, 8)
        return patched.tobytes()

    def in_bss(self, address: int) -> bool:
        """Tell whether a link-time address is in the program's memory but not in its file: zero when it starts."""
        return any(one.address + one.file_size <= address < one.address + one.memory_size for one in self.segments)

    def relocated(self, address: int) -> int | None:
        """Return the pointer at a link-time address as the loader would leave it, minus the load bias.

        None where the file has no such bytes (bss, or outside every segment). In PIE files the bytes are
        often 0 and the value is the addend of a relative relocation. Packed (DT_RELR) ones need no table:
        their addend stands in the bytes.
        """
        try:
            return int.from_bytes(self.read_relocated(address, 8), "little")
        except BinaryError:
            return None

    def pointers_to(self, address: int, limit: int = 64) -> list[int]:
        """Return up to `limit` 8-aligned places in writable segments that hold this link-time pointer, ascending."""
        offsets, addends = self._relocations
        found = {int(place) for place in offsets[addends == np.uint64(address)][:limit] if place % 8 == 0}
        for segment in self.segments:
            if segment.flags & elf.PF_W:
                for place in self.occurrences(address.to_bytes(8, "little"), segment, align=8):
                    found.add(place)
                    if len(found) >= limit:
                        break
        return sorted(found)[:limit]

    def occurrences(self, pattern: bytes, segment: Segment, align: int = 1) -> Iterator[int]:
        """Yield the link-time addresses in the segment, multiples of `align`, at which `pattern` stands."""
        overlap = len(pattern) - 1
        end = segment.address + segment.file_size
        at = segment.address
        while at < end:
            chunk = self.read(at, min(SCAN_CHUNK + overlap, end - at))
            hit = chunk.find(pattern)
            while hit >= 0:
                if (at + hit) % align == 0:
                    yield at + hit
                hit = chunk.find(pattern, hit + 1)
            at += SCAN_CHUNK

    def section(self, name: str) -> Section | None:
        """Return the first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    @property
    def stripped(self) -> bool:
        """Whether there is no symbol table (.symtab)."""
        return all(section.type != elf.SHT_SYMTAB for section in self.sections)

    @property
    def has_dwarf(self) -> bool:
        """Whether there is debugging information (.debug_info, compressed or not)."""
        return any(
            section.name in (".debug_info", ".zdebug_info") and section.type != elf.SHT_NOBITS and section.size
            for section in self.sections
        )

    @cached_property
    def interpreter(self) -> str | None:
        """The dynamic loader that PT_INTERP names; None for a static program."""
        for segment in self._program_headers:
            if segment.type == elf.PT_INTERP:
                raw = self.read_at(segment.offset, min(segment.file_size, _MAX_INTERPRETER))
                return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
        return None

    @cached_property
    def gnu_build_id(self) -> str | None:
        """The GNU build id in hexadecimal."""
        raw = self._note(b"GNU\0", _NT_GNU_BUILD_ID)
        return raw.hex() if raw else None

    @cached_property
    def go_build_id(self) -> str | None:
        """The Go build id: four hashes joined by slashes."""
        raw = self._note(b"Go\0\0", _NT_GO_BUILD_ID)
        return raw.decode("utf-8", "replace") if raw else None

    def symbols(self, names: Collection[str]) -> dict[str, int]:
        """Return the values of the symbols that .symtab defines, of those asked for; {} when stripped."""
        table = self.symbol_table(elf.SHT_SYMTAB) if names else None
        if table is None:
            return {}
        rows, strings = table
        blob = np.frombuffer(self.read_at(strings.offset, strings.size), dtype=np.uint8)
        offsets = np.ascontiguousarray(rows["name"])
        found = {}
        for name in names:
            hits = rows_named(blob, offsets, name)
            if len(hits):
                found[name] = int(rows["value"][hits[0]])
        return found

    def symbol_table(self, kind: int) -> tuple[NDArray[np.void], Section] | None:
        """Return the symbols that the file defines, rows of SYMBOL, and the section with their names; None without.

        `kind`: SHT_SYMTAB or SHT_DYNSYM.
        """
        table = next((section for section in self.sections if section.type == kind), None)
        if table is None:
            return None
        strings = self.sections[table.link] if table.link < len(self.sections) else None
        if strings is None or strings.type in (0, elf.SHT_NOBITS):
            raise self.error("the symbol table has no string table")
        if table.size > _MAX_TABLE or strings.size > _MAX_TABLE:
            raise self.error(f"a symbol table of {table.size} bytes with names of {strings.size}")
        rows = np.frombuffer(self.read_at(table.offset, table.size - table.size % SYMBOL.itemsize), dtype=SYMBOL)
        return rows[rows["shndx"] != 0], strings

    @cached_property
    def _relocations(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Places (ascending) and values of the relative relocations; the dynamic section finds them."""
        none = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
        dynamic = next((s for s in self._program_headers if s.type == elf.PT_DYNAMIC), None)
        relative = _RELATIVE.get(self.machine)
        if dynamic is None or relative is None:
            return none
        raw = self.read_at(dynamic.offset, min(dynamic.file_size, _MAX_NOTES) // 16 * 16)
        tags = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
        known = {int(tag): int(value) for tag, value in tags[np.isin(tags[:, 0], (_DT_RELA, _DT_RELASZ))][:16]}
        size = known.get(_DT_RELASZ, 0)
        if not size or _DT_RELA not in known:
            return none
        if size > _MAX_TABLE:
            raise self.error(f"a relocation table of {size} bytes")
        rows = np.frombuffer(self.read(known[_DT_RELA], size - size % _RELA.itemsize), dtype=_RELA)
        rows = rows[(rows["info"] & np.uint64(0xFFFFFFFF)) == relative]
        places, values = rows["offset"].copy(), rows["addend"].view("<u8") if len(rows) else none[1]
        if np.any(places[1:] < places[:-1]):
            order = np.argsort(places, kind="stable")
            places, values = places[order], values[order]
        return places, np.ascontiguousarray(values)

    def _note(self, name: bytes, kind: int) -> bytes | None:
        places = [(s.offset, s.file_size) for s in self._program_headers if s.type == elf.PT_NOTE]
        places += [(s.offset, s.size) for s in self.sections if s.type == elf.SHT_NOTE]
        for offset, size in places[:64]:
            for note_name, note_kind, descriptor in elf.notes(self.read_at(offset, min(size, _MAX_NOTES))):
                if (note_name, note_kind) == (name, kind):
                    return descriptor
        return None

    def _segment(self, address: int) -> Segment:
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.file_size:
                return segment
        raise self.error(f"the address {address:#x} is in no part of the file")

    def _pread(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.file_size:
            raise Malformed(f"{size} bytes at offset {offset} reach beyond its {self.file_size} bytes")
        parts, wanted = [], size
        try:
            # The kernel reads at most 2 GB at once.
            while wanted:
                part = self._read(wanted, offset + size - wanted)
                if not part:
                    raise Malformed("it became shorter while it was read")
                parts.append(part)
                wanted -= len(part)
        except TimeoutError as why:
            self.no_answer = _no_answer(self.path, self.served)
            raise Malformed(self.no_answer.what) from why
        except MemoryError as why:
            raise Malformed("gomem may not hold more of it: give gomem more memory") from why
        except OSError as why:
            raise Malformed(f"reading failed: {why.strerror}") from why
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset) if self._apart is None else self._apart.pread(size, offset)


def _opened(path: str, pid: int) -> tuple[int, str | None]:
    """Open a file that `pid` sees; return the descriptor, and the kind of its file system if others serve that.

    Then it is opened as O_PATH, for which nobody is asked where `path` is /proc/PID/exe. Raises OSError, ValueError.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        served = server_of(found, f"/proc/{pid or 'self'}")
        # Opening a FIFO would block for ever without O_NONBLOCK.
        fd = found if served else os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except BaseException:
        os.close(found)
        raise
    if not served:
        os.close(found)
    return fd, served


def _close(fd: int) -> None:
    # What a file system says of that (ENOTCONN: the server of a FUSE file system has gone) concerns who has written.
    with suppress(OSError):
        os.close(fd)


def _pid_in(path: str) -> int:
    """Return the pid in /proc/PID/exe, 0 for another path."""
    words = path.split("/")
    return int(words[2]) if words[:2] == ["", "proc"] and len(words) > 2 and words[2].isdigit() else 0


def _no_answer(path: str, served: str | None) -> NoAnswer:
    pid = _pid_in(path)
    whose = f"of {described(pid)}" if pid else path
    return NoAnswer(
        f"cannot read the executable {whose}: its file system ({served}) is served by others, who do not answer",
        "see who serves it (/proc/PID/mountinfo); look again when they answer, or end the process",
    )


def _remedy(path: str) -> str:
    """Return what is missing to read a file. Of the link /proc/PID/exe either the process or its file refuses us."""
    pid = _pid_in(path)
    if not pid:
        return remedy_for_file()
    try:
        status(path)
    except OSError:
        return remedy_for(pid, "exe")
    return remedy_for_file()
