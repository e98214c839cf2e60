"""What code is at an address of a Go program: its functions, the inlined ones too, with file and line.

It is all in the pclntab, which stripped programs have, too. Only what is asked for is read from the file and kept.
Source: funcline1, pcvalue and funcdata in runtime/symtab.go, inlineUnwinder in runtime/symtabinl.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from gomem.tracer.binary import inline_trees
from gomem.tracer.binary.decoded_functions import DecodedFunctions
from gomem.tracer.binary.encodings import Encoding, encoding_of, read_record
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.function_records import FunctionRecord
from gomem.tracer.binary.inline_trees import CallSite, InlinedCall, TreeFormat
from gomem.tracer.binary.pc_values import NO_VALUE, PcValues
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.source_files import SourceFiles
from gomem.tracer.binary.value_tables import ValueTables
from gomem.tracer.errors import BinaryError
from gomem.tracer.report.profile import Line

# The compiler inlines calls within calls a dozen deep.
_MAX_DEPTH = 64
# Bytes of names that are decoded in all; the largest programs have half of that. A corrupt one may make each address
# dear: then the later ones are told by their function's name alone, or not at all.
_MAX_TEXT = 1 << 25
# What is kept for speed: so many frames, and so many names.
_MAX_FRAMES, _MAX_NAMES = 1 << 16, 1 << 18
# Source: elideWrapperCalling in runtime/traceback.go.
_PANICS = {"runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap"}


class Frame(Struct, frozen=True):
    """One function at an address, as runtime.Frame has it: a real one, or one whose call was inlined.

    `pc` is a link-time address within the instruction that `line` is of. `entry` is the real function's. A wrapper is
    code that the compiler made up: it calls a method in another shape, or compares or hashes a type.
    """

    pc: int
    line: Line
    entry: int
    inlined: bool
    wrapper: bool


class _Code(Struct, frozen=True):
    """A function's tables."""

    entry: int
    record: FunctionRecord
    files: PcValues
    lines: PcValues
    inlined: PcValues
    tree: TreeFormat
    calls: bytes

    @property
    def rows(self) -> int:
        """How many rows its tables have, each of a few bytes."""
        return len(self.files.ends) + len(self.lines.ends) + len(self.inlined.ends) + len(self.calls) // 16

    def call(self, index: int) -> InlinedCall | None:
        """Return an inlined call, None where there is none of that index."""
        begin, size = index * self.tree.packed.size, self.tree.packed.size
        return self.tree.decode(self.calls[begin : begin + size]) if 0 <= begin < len(self.calls) else None


class _Place(Struct, frozen=True):
    """Where in a function's code an instruction is, and the inlined call that it is part of; None: it is its own."""

    offset: int
    file: int
    line: int
    call: InlinedCall | None


class Symbolizer:
    """Tells the functions at link-time addresses; the executable must stay open."""

    def __init__(self, exe: Executable, functions: FunctionTable, encoding: Encoding) -> None:
        """Take a program, its functions, and how it writes them down."""
        self._exe = exe
        self._functions = functions
        self._encoding = encoding
        self._files = SourceFiles(exe, functions)
        self._codes: DecodedFunctions[_Code] = DecodedFunctions()
        self._frames: dict[int, tuple[Frame, ...]] = {}
        self._names: dict[int, str] = {}
        self._held = 0
        self._tables = ValueTables(exe, functions)
        self._readable = _MAX_TEXT

    @classmethod
    def of(cls, exe: Executable, functions: FunctionTable) -> Symbolizer:
        """Return the symbolizer of a program. Raises BinaryError where its file is damaged."""
        return cls(exe, functions, encoding_of(exe, functions))

    @property
    def logical_stacks(self) -> bool:
        """Whether the runtime's own stacks have an address for each inlined call, too, as since Go 1.12.

        Before, one address stands for all functions at it: what `frames` tells of it.
        """
        return self._encoding.form.tree.site is not None

    def lines(self, address: int) -> tuple[Line, ...]:
        """Return the functions at an address, the innermost inlined one first; () outside of Go's text.

        `address` is a link-time one within the calling instruction: a return address less one. As in the runtime's own
        stacks, wrappers are left out, but for one that is all there is.
        """
        frames = self.frames(address)
        return tuple(frame.line for frame in told(frames)) or tuple(frame.line for frame in frames)

    def frames(self, address: int) -> tuple[Frame, ...]:
        """Return all functions at an address, wrappers too, the innermost inlined one first; () outside of Go's text.

        `address` is as for `lines`.
        """
        known = self._frames.get(address)
        if known is None:
            known = self._frames_at(address)
            self._held += len(known)
            if self._held > _MAX_FRAMES:
                self._frames.clear()
                self._held = len(known)
            self._frames[address] = known
        return known

    def _frames_at(self, address: int) -> tuple[Frame, ...]:
        row = self._functions.row(address)
        if row is None:
            return ()
        code = self._codes.get(row, self._read_code)
        if code is None:
            function = self._functions.function(row)
            return (Frame(address, Line(function.name), function.entry, False, False),)
        return tuple(self._frame(code, place) for place in _places(code, address - code.entry))

    def _frame(self, code: _Code, place: _Place) -> Frame:
        function = place.call or code.record
        name, file, line = self._name(function.name), "", 0
        if NO_VALUE not in (place.file, place.line):
            file, line = self._files.name(code.record.unit, place.file), place.line
        return Frame(
            code.entry + place.offset,
            Line(name, file, line, function.start_line),
            code.entry,
            place.call is not None,
            function.kind == self._encoding.wrapper,
        )

    def _name(self, offset: int) -> str:
        known = self._names.get(offset)
        if known is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            known = self._names[offset] = self._functions.name(offset) if self._readable > 0 else ""
            self._readable -= len(known)
        return known

    def _read_code(self, row: int) -> _Code | None:
        record = read_record(self._exe, self._functions, self._encoding.form, row)
        if record is None:
            return None
        entry, end = self._functions.extent(row)
        files, lines, inlined = (
            self._tables.read(offset, end - entry)
            for offset in (record.file_table, record.line_table, record.inline_table)
        )
        return _Code(
            entry, record, files, lines, inlined, self._encoding.form.tree, self._calls(record.inline_tree, inlined)
        )

    def _calls(self, tree: int | None, inlined: PcValues) -> bytes:
        """Return the records of the inlined calls that a function's code may be part of."""
        count, base = max(inlined.values, default=NO_VALUE) + 1, self._encoding.tree_base
        size = self._encoding.form.tree.packed.size * min(count, inline_trees.MAX_CALLS)
        if tree is None or base is None or not 0 < size <= self._tables.left:
            return b""
        self._tables.left -= size
        try:
            return self._exe.read(base + tree, size)
        except BinaryError:
            return b""


def told(frames: Iterable[Frame], callee: str = "") -> Iterator[Frame]:
    """Yield the frames that the runtime tells of, of those that call each other, the innermost first.

    Wrappers are left out, except where they panic. `callee` is the function that the first one calls. Source:
    elideWrapperCalling in runtime/traceback.go.
    """
    for frame in frames:
        if not frame.wrapper or callee in _PANICS:
            yield frame
        callee = frame.line.function


def _places(code: _Code, offset: int) -> list[_Place]:
    """Return where an instruction is, then where the call is that it is inlined by, and so on to the real function.

    Where that has no end, the instruction belongs to the real function alone.
    """
    found: list[_Place] = []
    file, line, index = code.files.at(offset), code.lines.at(offset), code.inlined.at(offset)
    while (call := code.call(index)) is not None:
        found.append(_Place(offset, file, line, call))
        if len(found) > _MAX_DEPTH:
            return [_Place(found[0].offset, found[0].file, found[0].line, None)]
        if isinstance(call.site, CallSite):
            index, file, line = call.site.parent, call.site.file, call.site.line
        else:
            offset = call.site
            file, line, index = code.files.at(offset), code.lines.at(offset), code.inlined.at(offset)
    return [*found, _Place(offset, file, line, None)]
