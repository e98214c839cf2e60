"""Which layout reads a live runtime, and its reader."""

from __future__ import annotations

from gomem.tracer.errors import LayoutError
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.runtime.self_checks import ensure_fits
from gomem.tracer.runtime.snapshot import RuntimeReader, RuntimeSnapshot

# Tries for each of the snapshots that a doubtful layout is checked with.
_TAKES_TO_CHECK = 4


def proven(program: GoProgram, memory: ProcessMemory, bias: int) -> GoProgram:
    """Return the program with a layout that has proven itself on this process; raises LayoutError if none does."""
    refusals = []
    for one in (program, *program.others):
        reader, addresses = reader_of(one, memory, bias)

        def take(reader: RuntimeReader = reader) -> RuntimeSnapshot:
            memory.start_budget()
            return reader.snapshot(_TAKES_TO_CHECK)

        assert one.layout is not None
        try:
            ensure_fits(take, memory, one.layout, addresses)
        except LayoutError as error:
            refusals.append(error)
            continue
        one.layout.confirmed = True
        return program.placed_as(one)
    raise refusals[0]


def reader_of(program: GoProgram, memory: ProcessMemory, bias: int) -> tuple[RuntimeReader, dict[str, int]]:
    """Return what reads the runtime of a program that is loaded at `bias`, and where its globals are."""
    assert program.layout is not None
    addresses = {name: address + bias for name, address in program.globals.items()}
    return RuntimeReader(memory, program.layout, addresses), addresses
