"""Globals found in code against the symbol table of the same program, however it was linked."""

from __future__ import annotations

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.layout.tables import table_for
from gomem.tracer.process.target import Target
from gomem.tracer.program.globals import find_globals, find_in_code, recipes
from gomem.tracer.program.go_program import load_program
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import Mode, build
from tests.support.parked import parked
from tests.support.toolchains import ALL_RELEASES

NAMES = ("mheap_", "memstats", "gcController", "allp", "work", "gcphase", "persistentChunks", "gcBitsArenas",
         "buckhash", "gcCPULimiter", "scavenge", "scavenger")  # fmt: skip
OF_PROFILES = ("mbuckets", "MemProfileRate", "mProfCycle")
FOR_LATER = ("physPageSize",)  # nothing reads it yet
MODES: tuple[Mode, ...] = ("exe", "pie", "cgo", "cgo-pie")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("release", ALL_RELEASES)
def test_code_tells_what_the_symbol_table_tells(release: str, mode: Mode) -> None:
    program = load_program(str(build("parked", release, mode=mode)))
    try:
        assert program.executable is not None
        assert program.functions is not None
        assert program.build is not None
        layout = table_for(program.build.go_version, "amd64")
        assert layout is not None
        depth = ("debug",) if layout.has("debug", "profstackdepth") else ()
        queues = tuple(name for name in ("allfin", "gcCleanups") if name in layout.globals)
        wanted = (*NAMES, *OF_PROFILES, *depth, *queues, *FOR_LATER)
        symbols = program.executable.symbols([f"runtime.{name}" for name in wanted])
        assert len(symbols) == len(wanted)
        found = find_in_code(program.executable, program.functions, layout, wanted)
        assert {f"runtime.{name}": address for name, address in found.items()} == symbols
        assert {name: program.globals[name] for name in NAMES} == {name: found[name] for name in NAMES}
    finally:
        program.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("release", ALL_RELEASES)
def test_a_stripped_program_is_read_exactly(release: str, mode: Mode) -> None:
    binary = build("parked", release, mode=mode, stripped=True)
    with parked(binary, live=8, goroutines=30) as target, Target.open(target.pid) as process:
        with Inspector.open(process) as inspector:
            assert inspector.program.executable is not None
            assert inspector.program.executable.stripped
            assert set(inspector.program.globals) >= set(NAMES)
            runtime = inspector.look().runtime
        assert runtime is not None
        assert runtime.consistency.exact
        assert runtime.missed == []
        truth = target.memstats()
        told = {name: value for name, value in runtime.memstats.items() if name != "BySize"}
        assert told == {name: truth[name] for name in told}


def test_every_global_that_is_asked_for_has_a_recipe() -> None:
    assert set(recipes()) >= set(NAMES)


def test_a_global_of_which_nobody_knows_a_recipe_is_not_found() -> None:
    with Executable.open(build("parked", ALL_RELEASES[-1], stripped=True)) as exe:
        functions = FunctionTable.find(exe)
        layout = table_for(f"go{ALL_RELEASES[-1]}", "amd64")
        assert layout is not None
        assert find_globals(exe, functions, layout, ["allp", "nobody"]).keys() == {"allp"}
