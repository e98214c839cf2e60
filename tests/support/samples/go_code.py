"""Makes Go programs by the book whose functions have files, lines and inlined calls, as each generation writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.samples.executables import DATA, MAGIC, RODATA, TEXT, Elf, Part, varint

TREES = 0x580000
# The version of the pclntab that each generation of records is in.
GENERATIONS = {"1.9": "1.2", "1.12": "1.2", "1.13": "1.2", "1.16": "1.16", "1.18": "1.18", "1.20": "1.20"}
# PCDATA_InlTreeIndex and FUNCDATA_InlTree.
_INDICES = {"1.9": (1, 2), "1.12": (1, 2), "1.13": (2, 4)}
# Where gofunc stands in moduledata, in words; no release has it in the same place.
_GOFUNC = {"1.18": 38, "1.20": 40}
WRAPPER = 21


@dataclass(frozen=True)
class Run:
    """Instructions of `size` bytes in one line, inlined by the call `index`; -1: they are the function's own."""

    size: int
    file: int
    line: int
    index: int = -1


@dataclass(frozen=True)
class Call:
    """An inlined call of `name`. It stands at the beginning of the run `site`."""

    name: str
    site: int
    start_line: int = 1
    kind: int = 0


@dataclass(frozen=True)
class Function:
    """A function's runs and calls."""

    name: str
    runs: Sequence[Run]
    calls: Sequence[Call] = ()
    start_line: int = 1
    kind: int = 0

    @property
    def size(self) -> int:
        """Bytes of code."""
        return sum(run.size for run in self.runs)

    def begin(self, run: int) -> int:
        """Return where a run begins, in bytes from the entry."""
        return sum(one.size for one in self.runs[:run])


@dataclass
class _Blob:
    """Bytes that grow, and where each text is in them."""

    raw: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    known: dict[bytes, int] = field(default_factory=dict)

    def add(self, content: bytes) -> int:
        if content not in self.known:
            self.known[content] = len(self.raw)
            self.raw += content
        return self.known[content]

    def name(self, text: str) -> int:
        return self.add(text.encode() + b"\0")


def values(runs: Sequence[tuple[int, int]], quantum: int = 1) -> bytes:
    """Encode (bytes of code, value) as cmd/internal/obj/pcln.go does; equal neighbours become one."""
    out, before, pending = bytearray(), -1, 0
    for at, (size, value) in enumerate(runs):
        pending += size
        if at + 1 < len(runs) and runs[at + 1][1] == value:
            continue
        delta = value - before
        out += varint(((delta << 1) ^ (delta >> 63)) & 0xFFFFFFFF) + varint(pending // quantum)
        before, pending = value, 0
    return bytes(out) + b"\0"


def tree(generation: str, function: Function, names: _Blob, name_base: int = 0) -> bytes:
    """Encode the inlined calls of a function."""
    out = bytearray()
    for call in function.calls:
        run, name, site = function.runs[call.site], name_base + names.name(call.name), function.begin(call.site)
        if generation == "1.9":
            out += struct.pack("<iiii", run.index, run.file, run.line, name)
        elif generation == "1.20":
            out += struct.pack("<Bxxxiii", call.kind, name, site, call.start_line)
        else:
            out += struct.pack("<hBxiiii", run.index, call.kind, run.file, run.line, name, site)
    return bytes(out)


class _Writer:
    """Lays out one program; offsets of version 1.2 count from the pclntab, later ones from parts of it."""

    def __init__(self, generation: str, functions: Sequence[Function], files: Sequence[str]) -> None:
        self.generation = generation
        self.version = GENERATIONS[generation]
        self.functions = functions
        self.relative = self.version in ("1.18", "1.20")
        self.names, self.tables, self.texts, self.trees = _Blob(), _Blob(), _Blob(), bytearray()
        self.files = [self.texts.name(file) for file in files]
        self.relocated: dict[int, int] = {}  # offset in the pclntab -> address
        self.raw = self._old() if self.version == "1.2" else self._new()

    def _records(self, at: int, name_base: int, table_base: int) -> tuple[bytes, list[int]]:
        out, places, entry = bytearray(), [], TEXT
        for function in self.functions:
            out += bytes(-(at + len(out)) % 8)
            places.append(at + len(out))
            out += self._record(function, entry, at + len(out), name_base, table_base)
            entry += function.size
        return bytes(out), places

    def _record(self, function: Function, entry: int, at: int, name_base: int, table_base: int) -> bytes:
        inline_table, inline_tree = _INDICES.get(self.generation, (2, 3))
        runs = function.runs
        tables = [
            table_base + self.tables.add(values([(run.size, getattr(run, what)) for run in runs]))
            for what in ("file", "line", "index")
        ]
        pcdata = [0] * inline_table + [tables[2] if function.calls else 0]
        fixed = struct.pack("<I" if self.relative else "<Q", entry - TEXT if self.relative else entry)
        if not self.relative:
            self.relocated[at] = entry
        fixed += struct.pack("<iii", name_base + self.names.name(function.name), 0, 0)
        fixed += struct.pack("<IIII", 0, tables[0], tables[1], len(pcdata))
        fixed += struct.pack("<I", 0) if self.version != "1.2" else b""
        fixed += struct.pack("<i", function.start_line) if self.version == "1.20" else b""
        count = inline_tree + 1
        fixed += struct.pack("<I", count) if self.generation == "1.9" else bytes([function.kind, 0, 0, count])
        raw = fixed + struct.pack(f"<{len(pcdata)}I", *pcdata)
        return raw + self._funcdata(function, at + len(raw), inline_tree, name_base)

    def _funcdata(self, function: Function, at: int, inline_tree: int, name_base: int) -> bytes:
        where = len(self.trees)
        self.trees += tree(self.generation, function, self.names, name_base)
        if self.relative:
            none = 0xFFFFFFFF
            return struct.pack(f"<{inline_tree + 1}I", *[none] * inline_tree, where if function.calls else none)
        padding = -at % 8
        if function.calls:
            self.relocated[at + padding + 8 * inline_tree] = TREES + where
        return bytes(padding + 8 * inline_tree) + struct.pack("<Q", TREES + where if function.calls else 0)

    def _functab(self, places: Sequence[int]) -> bytes:
        out, at, field_format = bytearray(), 0 if self.relative else TEXT, "<II" if self.relative else "<QQ"
        for function, place in zip(self.functions, places, strict=True):
            out += struct.pack(field_format, at, place)
            at += function.size
        return bytes(out) + struct.pack(field_format[:2], at)

    def _new(self) -> bytes:
        """Header, names, units, files, tables, then functab and the records, which count from functab."""
        functab_size = -(-(2 * len(self.functions) + 1) * (4 if self.relative else 8) // 8) * 8
        self._fill()
        fields = 8 if self.relative else 7
        parts = [bytes(self.names.raw), struct.pack(f"<{len(self.files)}I", *self.files), bytes(self.texts.raw),
                 bytes(self.tables.raw)]  # fmt: skip
        places, at = [], 8 + 8 * fields
        for number, part in enumerate(parts):
            parts[number] = part + bytes(-len(part) % 8)
            places.append(at)
            at += len(parts[number])
        self.functab = at
        records, offsets = self._records(functab_size, 0, 0)
        self.relocated = {place + at: value for place, value in self.relocated.items()}
        functab = self._functab(offsets)
        if not self.relative:
            self.relocated |= {at + 16 * row: place for row, place in enumerate(self._entries())}
        words = [len(self.functions), len(self.files), *([TEXT] if self.relative else []), *places, at]
        header = struct.pack("<IBBBB", MAGIC[self.version], 0, 0, 1, 8) + struct.pack(f"<{fields}Q", *words)
        return header + b"".join(parts) + functab.ljust(functab_size, b"\0") + records

    def _old(self) -> bytes:
        """Header and functab; behind them texts of all kinds, and the records."""
        self.functab = 16
        first = self.functab + 8 * (2 * len(self.functions) + 1) + 8
        self._fill()
        names, tables = first, first + len(self.names.raw)
        texts = tables + len(self.tables.raw)
        files_at = -(-(texts + len(self.texts.raw)) // 8) * 8
        files = struct.pack(f"<{len(self.files) + 1}I", len(self.files) + 1, *(texts + one for one in self.files))
        records_at = -(-(files_at + len(files)) // 8) * 8
        records, offsets = self._records(records_at, names, tables)
        self.relocated |= {self.functab + 16 * row: place for row, place in enumerate(self._entries())}
        head = struct.pack("<IBBBBQ", MAGIC["1.2"], 0, 0, 1, 8, len(self.functions)) + self._functab(offsets)
        head += struct.pack("<I", files_at).ljust(8, b"\0")
        body = bytes(self.names.raw) + bytes(self.tables.raw) + bytes(self.texts.raw)
        return (head + body).ljust(files_at, b"\0") + files.ljust(records_at - files_at, b"\0") + records

    def _fill(self) -> None:
        """Note all names and tables, so that it is known how long each part is."""
        for function in self.functions:
            self.names.name(function.name)
            tree(self.generation, function, self.names)
            for what in ("file", "line", "index"):
                self.tables.add(values([(run.size, getattr(run, what)) for run in function.runs]))

    def _entries(self) -> list[int]:
        return [TEXT + sum(one.size for one in self.functions[:row]) for row in range(len(self.functions) + 1)]


def go_code(generation: str, functions: Sequence[Function], files: Sequence[str], pie: bool = False) -> Elf:
    """Return a program of such functions, one behind the other from TEXT on.

    Numbers of files count from 0, before Go 1.16 from 1.
    """
    writer = _Writer(generation, functions, files)
    end = TEXT + sum(function.size for function in functions)
    old = writer.version == "1.2"
    ftab = 3 if old else 16
    words = {0: RODATA, ftab: RODATA + writer.functab, ftab + 1: len(functions) + 1, ftab + 2: len(functions) + 1}
    words |= {ftab + 3: RODATA, ftab + 4: TEXT, ftab + 5: end, ftab + 6: TEXT, ftab + 7: end}
    if generation in _GOFUNC:
        # Of what else is there, some is readable: it must not be taken for gofunc.
        words |= {ftab + 8: DATA, ftab + 9: DATA + 64, _GOFUNC[generation] - 1: RODATA, _GOFUNC[generation]: TREES}
    data, table, relocations = bytearray(640), bytearray(writer.raw), {}
    for index, value in words.items():
        if pie and value >= TEXT:
            relocations[DATA + 64 + 8 * index] = value
        else:
            struct.pack_into("<Q", data, 64 + 8 * index, value)
    if pie:
        for offset, value in writer.relocated.items():
            relocations[RODATA + offset] = value
            table[offset : offset + 8] = bytes(8)
    return Elf(
        [
            Part(".text", TEXT, b"\xcc" * (end - TEXT), 5),
            Part(".gopclntab", RODATA, bytes(table), 4),
            Part(".rodata", TREES, bytes(writer.trees) + bytes(64), 4),
            Part(".data", DATA, bytes(data), 6, extra_memory=4096),
        ],
        pie=pie,
        relocations=relocations,
    )
