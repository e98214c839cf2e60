"""What the runtime's unwinder asks of code: how far the stack pointer has moved since its function was called.

Source: funcspdelta in runtime/symtab.go; unwinder.resolveInternal in runtime/traceback.go (up to Go 1.20,
gentraceback); FuncFlag in internal/abi/symtab.go (Go 1.17 and later).
"""

from __future__ import annotations

from dataclasses import dataclass

from gomem.tracer.binary.decoded_functions import DecodedFunctions
from gomem.tracer.binary.encodings import encoding_of, read_record
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pc_values import PcValues
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.value_tables import ValueTables

_TOP, _WRITES_SP = 1, 2  # FuncFlagTopFrame, FuncFlagSPWrite
# Calls that a signal put in: what called them stands at the very instruction, not behind a call.
INJECTED = {"runtime.sigpanic", "runtime.asyncPreempt", "runtime.debugCallV1", "runtime.debugCallV2"}
# Nothing calls them; up to Go 1.16 no flag says so (topofstack in runtime/traceback.go).
_FIRST = {"runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack", "runtime.rt0_go"}
# It writes SP, but both stacks are fit to be followed while it does.
_SWITCHES_SAFELY = "runtime.cgocallback"


@dataclass(frozen=True, slots=True)
class CallFrame:
    """The frame of the function at an address. `size`: bytes from the stack pointer there to the return address."""

    function: str
    size: int
    at_entry: bool
    top: bool  # nothing called it
    writes_sp: bool  # in a way that no table tells of: where it goes on is not known


class CallFrames:
    """Tells the frames at link-time addresses; the executable must stay open."""

    def __init__(self, exe: Executable, functions: FunctionTable) -> None:
        """Take the program's tables. Raises BinaryError where its file is damaged."""
        self._exe = exe
        self._functions = functions
        self._form = encoding_of(exe, functions).form
        self._codes: DecodedFunctions[_Code] = DecodedFunctions()
        self._tables = ValueTables(exe, functions)

    def at(self, address: int) -> CallFrame | None:
        """Return the frame of the function that goes on at an address; None outside of Go's text, or if it has none."""
        row = self._functions.row(address)
        code = None if row is None else self._codes.get(row, self._read)
        if code is None:
            return None
        size = code.sizes.at(address - code.entry)
        if size < 0:
            return None
        return CallFrame(
            code.name,
            size,
            address == code.entry,
            bool(code.flags & _TOP) or code.name in _FIRST,
            bool(code.flags & _WRITES_SP) and code.name != _SWITCHES_SAFELY,
        )

    def _read(self, row: int) -> _Code | None:
        record = read_record(self._exe, self._functions, self._form, row)
        if record is None or not record.frame_table:
            return None
        entry, end = self._functions.extent(row)
        sizes = self._tables.read(record.frame_table, end - entry)
        return _Code(self._functions.name(record.name), entry, record.flags, sizes)


@dataclass(frozen=True, slots=True)
class _Code:
    name: str
    entry: int
    flags: int
    sizes: PcValues

    @property
    def rows(self) -> int:
        """How many rows the table of sizes has."""
        return len(self.sizes.ends)
