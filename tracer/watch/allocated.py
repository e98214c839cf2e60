"""What a program's runtime has counted of its allocations, read now and then by whoever counts them as well."""

from __future__ import annotations

from gomem.tracer.errors import GomemError
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.counters import read_counters
from gomem.tracer.snapshot.inspection import Inspector


class AllocatedReader:
    """Reads it with a memory of its own, so that any thread may, one at a time."""

    def __init__(self, inspector: Inspector) -> None:
        """Take the process; where nothing can be read, nothing will be told."""
        self.memory: ProcessMemory | None = None
        self.failure: GomemError | None = None  # why the last try failed
        self._inspector = inspector
        try:
            inspector.prepare()
            self.memory = inspector.own_memory()
        except GomemError as error:
            self.failure = error

    def read(self) -> Allocated | None:
        """Return what the runtime has counted; None where that cannot be read, for now or at all."""
        inspector, memory = self._inspector, self.memory
        if memory is None or inspector.bias is None:
            return None
        program, bias = inspector.program, inspector.bias
        if program.layout is None or not program.layout.confirmed or not program.readable:
            return None
        addresses = {name: address + bias for name, address in program.globals.items()}
        try:
            memory.start_budget()
            found = Allocated.of(read_counters(memory, program.layout, addresses))
            inspector.target.check_same_program()  # else it was another one's
        except GomemError as error:
            self.failure = error
            return None
        return found

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        if self.memory is not None:
            self.memory.close()
            self.memory = None
