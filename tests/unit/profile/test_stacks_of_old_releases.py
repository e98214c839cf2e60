from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.profile.stacks import Locations, Stacks, Symbols, complete, hide_runtime
from tests.support.samples.executables import TEXT, elf_file, write
from tests.support.samples.go_code import Call, Function, Run, go_code

FILES = ["main.go"]
MALLOC = Function("runtime.mallocgc", [Run(16, 1, 40), Run(16, 1, 7, 0)], [Call("runtime.acquirem", 0)])
MAIN = Function(
    "main.main", [Run(16, 1, 9), Run(16, 1, 5, 0), Run(16, 1, 3, 1)], [Call("main.f", 0), Call("main.g", 1)]
)
BIAS = 1 << 40


@pytest.mark.parametrize("generation", ["1.9", "1.12"])
def test_inlined_functions_are_told_whether_the_stack_has_addresses_of_them_or_not(
    tmp_path: Path, generation: str
) -> None:
    """Up to Go 1.11 a stack has one address for each real function, since then one for each inlined one, too."""
    with Executable.open(write(tmp_path / "program", elf_file(go_code(generation, [MALLOC, MAIN] * 9, FILES)))) as exe:
        symbols = Symbols(Symbolizer.of(exe, FunctionTable.find(exe)), BIAS)
        main = BIAS + TEXT + MALLOC.size
        in_g, in_f, in_main = (main + MAIN.begin(run) + 1 for run in (2, 1, 0))
        pcs = (
            [BIAS + TEXT + 20, in_g, in_main]
            if generation == "1.9"
            else [BIAS + TEXT + 20, in_g, in_f, in_main, in_main]
        )
        locations = Locations(symbols, ())
        stacks = Stacks(np.array([0, len(pcs)]), np.array(pcs, np.uint64))
        assert list(locations.of(complete(hide_runtime(stacks, symbols), symbols))) == [(0, 1)]
        told = [[(line.function, line.line) for line in location.lines] for location in locations.all()]
    assert told == [[("main.g", 3), ("main.f", 5), ("main.main", 9)], [("main.main", 9)]]
