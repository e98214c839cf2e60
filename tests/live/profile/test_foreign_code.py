"""Addresses of C code in a process, named by its files' own symbols; nm says what they are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.process.target import Target
from gomem.tracer.profile import foreign_code
from gomem.tracer.profile.foreign_code import ForeignCode
from gomem.tracer.profile.mapped_code import mapped_code
from gomem.tracer.profile.stacks import Locations, Stacks, Symbols
from gomem.tracer.report.profile import Location
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.processes import running, sleeping

PAUSE = 34
FUNCTION = re.compile(r"(?m)^([0-9a-f]+) ([0-9a-f]+) [TtWi] ([^@\s]+)")


def functions(path: Path, *options: str) -> dict[str, range]:
    """Return the link-time addresses of a file's functions, as nm has them."""
    said = subprocess.run(["nm", "-S", *options, str(path)], capture_output=True, text=True, check=False).stdout
    return {name: range(int(at, 16), int(at, 16) + int(size, 16)) for at, size, name in FUNCTION.findall(said)}


def waits_at(pid: int) -> int:
    """Return where a thread is in pause(2), which it has called from C."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        number, *words = (task / "syscall").read_text().split()
        if number == str(PAUSE):
            return int(words[-1], 16)
    raise AssertionError("no thread is in pause")


def located(pid: int, pcs: list[int]) -> tuple[list[Location], Mappings]:
    """Return a location for each return address."""
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        inspector.prepare()
        program, bias = inspector.program, inspector.bias
        assert program.executable is not None
        assert program.functions is not None
        assert bias is not None
        symbols = Symbols(Symbolizer.of(program.executable, program.functions), bias)
        mappings = read_mappings(target).mappings
        locations = Locations(symbols, mapped_code(inspector, mappings), ForeignCode(pid, mappings).lines)
        (stack,) = locations.of(Stacks(np.array([0, len(pcs)]), np.array(pcs, np.uint64)))
        return [locations.all()[one] for one in stack], mappings


def names(locations: list[Location]) -> list[str]:
    return [" ".join(line.function for line in one.lines) for one in locations]


def loaded_at(mappings: Mappings, name: str) -> tuple[Path, int]:
    """Return the path of the first mapped file of that name, and where its first byte is."""
    row = next(row for row, path in enumerate(mappings.name) if Path(path).name.startswith(name))
    return Path(mappings.name[row]), int(mappings.start[row])


@pytest.mark.parametrize("stripped", [False, True])
def test_c_code_of_the_executable_and_of_libc_has_the_names_that_nm_has(stripped: bool) -> None:
    own = functions(build("cthreads", "1.27.3", mode="cgo-pie"))
    path = build("cthreads", "1.27.3", mode="cgo-pie", stripped=stripped)
    with running(path, 1, 4096, 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        waits, (_, mappings) = waits_at(process.pid), located(process.pid, [1])
        libc, base = loaded_at(mappings, "libc.so")
        _, start = loaded_at(mappings, "cthreads")
        of_libc = functions(libc, "-D")
        call = start + own["touch"].start + 8
        found, _ = located(process.pid, [waits, call, start + own["main.main"].start + 8, base + 8, 1])
    assert waits - 1 - base in of_libc["pause"]
    touch = own["touch"] if not stripped else functions(path).get("touch")
    assert names(found) == ["pause", "touch" if touch else "", "main.main", "", ""]


def test_so_many_addresses_and_files_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with sleeping() as process, Target.open(process.pid) as target:
        mappings = read_mappings(target).mappings
        libc, base = loaded_at(mappings, "libc.so")
        of_libc = functions(libc, "-D")
        malloc, pause = (base + of_libc[name].start for name in ("malloc", "pause"))
        monkeypatch.setattr(foreign_code, "_MOST_ADDRESSES", 3)
        code = ForeignCode(process.pid, mappings)
        assert [line.function for (line,) in code.lines([pause, malloc]).values()] == ["pause", "malloc"]
        assert list(code.lines([pause, malloc])) == [pause]
        assert code.lines([pause]) == {}
        monkeypatch.setattr(foreign_code, "_MOST_FILES", 0)
        assert ForeignCode(process.pid, mappings).lines([pause]) == {}
