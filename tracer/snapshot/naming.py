"""What a look's addresses mean in the program: the names of types, and of the functions that allocated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property

from msgspec.structs import replace

from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.errors import BinaryError, GomemError
from gomem.tracer.process.memory import Memory
from gomem.tracer.program.file_memory import FileMemory
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.runtime.large_spans import LargeSpan
from gomem.tracer.runtime.types import TypeNames

_RUNTIME = "runtime."


def type_finders(program: GoProgram, bias: int | None, memory: Memory | None) -> Sequence[TypeNames]:
    """Return what finds the names of types: in the program's file, and in `memory` those that a plugin has.

    `bias`: how far the process has the program from its link-time addresses. Of one that has ended, the file says it.
    """
    exe, functions, layout = program.executable, program.functions, program.layout
    if exe is None or functions is None or functions.moduledata is None or layout is None or bias is None:
        return []
    finders: list[TypeNames] = []
    for source in (FileMemory(exe, bias), memory):
        if source is not None:
            with suppress(GomemError):
                finders.append(TypeNames(source, layout, functions.moduledata + bias))
    return finders


class Naming:
    """Names what one process's looks found; what it needs for that is learnt once."""

    def __init__(self, program: GoProgram, bias: int, memory: Callable[[], Memory]) -> None:
        """`bias`: how far the process has the program from its link-time addresses."""
        self._program = program
        self._bias = bias
        self._memory = memory
        self._types: dict[int, tuple[str | None, int | None]] = {}

    def named(self, span: LargeSpan) -> LargeSpan:
        """Return a large object with the name of its type and the call that allocated it. Raises TargetGone."""
        name, size = self._type(span.type_address) if span.type_address else (None, None)
        function, file, line = self._site(span.stack)
        return replace(span, stack=(), type_name=name, type_size=size, function=function, file=file, line=line)

    @cached_property
    def _finders(self) -> Sequence[TypeNames]:
        return type_finders(self._program, self._bias, self._memory())

    @cached_property
    def _symbolizer(self) -> Symbolizer | None:
        with suppress(BinaryError):
            return self._program.symbolizer()
        return None

    def _type(self, address: int) -> tuple[str | None, int | None]:
        known = self._types.get(address)
        if known is None:
            known = next(
                (
                    (name, finder.size(address))
                    for finder in self._finders
                    if (name := finder.name(address)) is not None
                ),
                (None, None),
            )
            if known[0] is not None:  # a plugin may be loaded later
                self._types[address] = known
        return known

    def _site(self, stack: Sequence[int]) -> tuple[str | None, str, int]:
        """Return the innermost function of a stack that is not the runtime's, its file and line."""
        if self._symbolizer is None:
            return None, "", 0
        for address in stack:
            for line in self._symbolizer.lines(address - 1 - self._bias):
                if not line.function.startswith(_RUNTIME):
                    return line.function, line.file, line.line
        return None, "", 0
