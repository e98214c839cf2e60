"""The Go code of a process: what a profile needs to name the addresses in it."""

from __future__ import annotations

from collections.abc import Iterable

from gomem.tracer.errors import TargetError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.profile.foreign_code import ForeignCode
from gomem.tracer.profile.mapped_code import mapped_code
from gomem.tracer.profile.stacks import Locations, Symbols
from gomem.tracer.snapshot.inspection import Inspector

_PRINTS = "runtime.funcNamePiecesForPrint"
_SINCE_1_22 = "mspan", "largeType"


class GoCode:
    """The program of a process, with its functions, its runtime's layout, and where it is loaded."""

    def __init__(self, inspector: Inspector) -> None:
        """Understand the program. Raises TargetError where it is not understood, NotPermitted, TargetGone."""
        self.inspector = inspector
        self.who = f"process {inspector.target.pid} ({inspector.target.exe})"
        inspector.prepare()
        inspector.prove_layout()
        program, bias = inspector.program, inspector.bias
        if program.layout is None or program.functions is None or program.executable is None:
            limit = next(iter(program.limits), None)
            why, fix = (limit.why, limit.fix) if limit else ("its Go runtime is not known", "")
            raise TargetError(f"{self.who} has no profile that can be read: {why}", fix)
        if bias is None:
            raise TargetError(f"{self.who} does not map its own executable")
        self.layout, self.functions, self.executable = program.layout, program.functions, program.executable
        self.bias = bias
        # Since Go 1.21 names are printed without types; runtime/pprof goes by whole ones since 1.22.
        by_printed_names = program.has_function(_PRINTS) and not self.layout.has(*_SINCE_1_22)
        self.symbols = Symbols(program.symbolizer(), bias, joins_by_printed_names=by_printed_names)

    def globals(self, names: Iterable[str]) -> dict[str, int]:
        """Return where these globals of the runtime are in the process, as far as they can be found."""
        return {name: at + self.bias for name, at in self.inspector.program.find(names).items()}

    def locations(self, mappings: Mappings, *, foreign: bool = False) -> Locations:
        """Return where locations of stacks are collected; with `foreign` code that is not Go's has names, too."""
        names = ForeignCode(self.inspector.target.pid, mappings).lines if foreign else None
        return Locations(self.symbols, mapped_code(self.inspector, mappings), names)
