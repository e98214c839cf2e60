"""Where in its own code a program calls for memory: of a stack, the first function that is not the runtime's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gomem.tracer.binary.symbols import Frame, told
from gomem.tracer.profile.stacks import GOEXIT, RUNTIME, Symbols
from gomem.tracer.report.profile import Line

# What C code calls; behind it there are no frames of Go.
_FROM_C = {"runtime.cgocallback", "runtime.mstart", "runtime.rt0_go", GOEXIT}


class CallSite(NamedTuple):
    """A line of source that allocates, or calls the function of the runtime that does.

    `function` is its full name; None where no function of the program is at `address`, an address within the calling
    instruction. `file` "" and `line` 0: not known.
    """

    function: str | None
    file: str = ""
    line: int = 0
    address: int = 0


class CallSites:
    """The call sites of a program, each with a number, in the order in which they were met."""

    def __init__(self, symbols: Symbols | None, of_runtime: int | None = None) -> None:
        """`symbols` None: nothing is known of its code. `of_runtime`: the address of a function of package runtime."""
        self._symbols = symbols
        frames = symbols.frames(of_runtime) if symbols is not None and of_runtime is not None else ()
        self._directory = frames[-1].line.file.rpartition("/")[0] if frames else ""
        self._numbers: dict[CallSite, int] = {}
        self._sites: list[CallSite] = []

    def number(self, addresses: Sequence[int]) -> int:
        """Return the number of the site of a stack of return addresses, the innermost first; there is at least one."""
        site = self._site(addresses)
        if site not in self._numbers:
            self._numbers[site] = len(self._sites)
            self._sites.append(site)
        return self._numbers[site]

    def site(self, number: int) -> CallSite:
        """Return the site with this number."""
        return self._sites[number]

    def _site(self, addresses: Sequence[int]) -> CallSite:
        """Return the innermost function that is not the runtime's, or of those of the runtime alone the outermost.

        An inlined function is one, too. Code that is not the program's own, such as a plugin's, is told by its address.
        """
        if self._symbols is None:
            return CallSite(None, address=addresses[0] - 1)
        outermost: Frame | None = None
        callee = ""
        for address in addresses:
            frames = self._symbols.frames(address - 1)
            if not frames and callee in _FROM_C:
                break
            if not frames:
                return CallSite(None, address=address - 1)
            for frame in told(frames, callee):
                callee = frame.line.function
                if not self._is_runtime(frame.line):
                    return _of(frame)
                if callee != GOEXIT:
                    outermost = frame
        return _of(outermost) if outermost is not None else CallSite(None, address=addresses[0] - 1)

    def _is_runtime(self, line: Line) -> bool:
        """Tell whether a function is in package runtime: reflect.unsafe_New is too, under another package's name."""
        directory = line.file.rpartition("/")[0]
        return line.function.startswith(RUNTIME) or (bool(directory) and directory == self._directory)


def _of(frame: Frame) -> CallSite:
    return CallSite(frame.line.function, frame.line.file, frame.line.line)
