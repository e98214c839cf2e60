"""The calls of goroutines' stacks as the runtime tells of them: inlined calls too, what the compiler made up not.

Source: tracebackPCs and isSystemGoroutine in runtime/traceback.go (up to Go 1.20, gentraceback).
"""

from __future__ import annotations

from collections.abc import Iterable

from gomem.tracer.binary.call_frames import INJECTED, CallFrame, CallFrames
from gomem.tracer.binary.symbols import told
from gomem.tracer.profile.code import GoCode

# Up to Go 1.20 only what faulted is told by the instruction itself, not what a signal stopped.
_OLDER_UNWINDER, _FAULTS = "runtime.gentraceback", {"runtime.sigpanic"}


class GoroutineCalls:
    """What is at the addresses of a process's goroutines."""

    def __init__(self, code: GoCode, frames: CallFrames, most: int) -> None:
        """`frames`: of the program. `most`: as many addresses as the runtime keeps of a stack."""
        self.most = most
        self._code = code
        self._frames = frames
        self._traps = _FAULTS if code.functions.lookup(_OLDER_UNWINDER) else INJECTED

    def frame(self, pc: int) -> CallFrame | None:
        """Return the frame of the function that goes on at `pc`; None outside of Go's code."""
        return self._frames.at(pc - self._code.bias)

    def told(self, stack: Iterable[int]) -> tuple[int, ...]:
        """Return the addresses that the runtime's own profile has for a stack of addresses where functions go on.

        An inlined call has one of its own; all are return addresses, or as if they were.
        """
        found: list[int] = []
        callee, trap = "", False
        for pc in stack:
            call = self.frame(pc)
            if call is None:
                break
            at = pc if trap or call.at_entry else pc - 1
            frames = told(self._code.symbols.frames(at), callee)
            addresses = [frame.pc + 1 + self._code.bias for frame in frames]
            found += addresses if self._code.symbols.logical_stacks else [at + 1]
            callee, trap = call.function, call.function in self._traps
        return tuple(found[: self.most])

    def name(self, pc: int) -> str:
        """Return the function at an address, "" outside of Go's code."""
        function = self._code.functions.at(pc - self._code.bias)
        return function.name if function else ""

    def is_in_program(self, stack: Iterable[int]) -> bool:
        """Tell whether one of the functions of a stack is not the runtime's."""
        return any(not self.name(pc).startswith("runtime.") for pc in stack)
