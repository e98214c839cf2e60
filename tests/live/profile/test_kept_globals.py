"""What leads to a profile in a program is looked for once, and kept for as long as the program is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gomem.tracer.binary.encodings import Encoding, encoding_of
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.target import Target
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.program import go_program
from gomem.tracer.program.globals import find_globals
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.heapprofile import profiled


@pytest.mark.parametrize("take", [heap_profile, goroutine_profile])
def test_the_code_is_searched_once_for_all_processes_of_a_program(
    take: Callable[[Inspector], Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, searched, asked, found = Programs(), [], [], []

    def counted(exe: Executable, functions: FunctionTable, layout: Layout, names: list[str]) -> dict[str, int]:
        searched.append(list(names))
        return find_globals(exe, functions, layout, names)

    def told(exe: Executable, functions: FunctionTable) -> Encoding:
        asked.append(exe)
        return encoding_of(exe, functions)

    binary = build("heapprofile", "1.27.3", stripped=True, mode="pie")
    with profiled(binary, "-rate", 512) as one, profiled(binary, "-rate", 512) as other:
        for pid in (one.pid, one.pid, other.pid):
            with Target.open(pid) as target:
                shared = programs.take(target)
                monkeypatch.setattr(go_program, "find_globals", counted)
                monkeypatch.setattr(go_program, "encoding_of", told)
                with Inspector(target, shared.program, owns_program=False) as inspector:
                    found.append(len(take(inspector).samples))
                programs.give_back(shared)
        programs.close()
    assert len(searched) == len(asked) == 1
    assert min(found) >= 2
