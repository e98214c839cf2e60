"""Go where no file shows it: packed and garbled programs, and those of other compilers than Go's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gomem.exporters.text.report import render_text
from gomem.exporters.verdict import verdict
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import load_program
from gomem.tracer.report import Limit, Report
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.probes import plan_probes
from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.command import gomem
from tests.support.garbling import garbled
from tests.support.packing import packed
from tests.support.parked import Parked, parked
from tests.support.processes import running, wait_until
from tests.support.requirements import program
from tests.support.seen import look_at

RELEASES = ["1.19", "1.27.3"]
FIGURES = ("HeapInuse", "HeapSys", "HeapAlloc", "HeapReleased", "StackInuse", "Mallocs")
# Code in anonymous memory, as a compiler that works while the program runs makes it.
JIT = "import mmap, sys; held = mmap.mmap(-1, 1 << 16, 0x22, 7); held[:4] = b'code'; print(flush=True); input()"


def told(target: Parked) -> tuple[Report, dict[str, Limit]]:
    """Return the report of a parked target, whose figures are its own."""
    _, report = look_at(target.process)
    assert report.memstats is not None
    assert {name: report.memstats[name] for name in FIGURES} == {name: target.emitted[name] for name in FIGURES}
    return report, {limit.id: limit for limit in report.limits}


@pytest.mark.parametrize("release", RELEASES)
def test_a_packed_program_is_read_from_the_memory_that_it_unpacks_itself_into(release: str, tmp_path: Path) -> None:
    plain = build("parked", release, stripped=True)
    path = packed(plain, tmp_path)
    alone = load_program(str(path))
    assert not alone.is_go
    alone.close()
    with parked(path, live=16) as target:
        report, limits = told(target)
    assert (report.process.go_version or "").startswith(f"go{release}")
    assert report.process.exe == str(path)
    assert list(limits) == ["module-in-memory"]
    assert "packed" in limits["module-in-memory"].why


def test_no_probe_is_put_on_a_packed_programs_code(tmp_path: Path) -> None:
    path = packed(build("parked", RELEASES[-1], stripped=True), tmp_path)
    with parked(path, live=1) as target, Target.open(target.pid) as process, Inspector.open(process) as inspector:
        planned = plan_probes(inspector.program)
    assert planned.specs == ()
    assert [limit.id for limit in planned.limits] == ["runtime-events"]
    assert "packed" in planned.limits[0].why


def test_code_in_memory_that_is_not_gos_is_searched_and_said_to_be_none() -> None:
    with running(sys.executable, "-c", JIT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _, report = look_at(process)
    assert report.memstats is None
    assert [limit.id for limit in report.limits] == ["not-go", "packed-not-go"]


@pytest.mark.parametrize("release", RELEASES)
def test_a_program_that_says_neither_its_release_nor_its_magic_is_read(release: str, tmp_path: Path) -> None:
    with parked(garbled("parked", release, tmp_path), live=16) as target:
        report, limits = told(target)
    assert "(guessed)" in (report.process.go_version or "")
    assert report.process.layout == "nearest"
    assert list(limits) == ["layout-unmeasured"]


@pytest.mark.parametrize("compiler", ["gccgo", "TinyGo"])
def test_programs_of_other_compilers_are_named_as_such(compiler: str, tmp_path: Path) -> None:
    path = made_by(compiler, tmp_path)
    with running(path) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/exe").resolve() == path.resolve(), "the program")
        _, report = look_at(process)
        refusal = gomem("snapshot", process.pid, "--require-go").refusal(1)
    assert report.memstats is None
    limits = {limit.id: limit for limit in report.limits}
    assert "not-go" not in limits
    assert f"compiled by {compiler}" in limits["other-go-compiler"].why
    assert "no Go runtime was found" not in verdict(report)
    assert "no Go," not in render_text(report)
    assert compiler in refusal


def made_by(compiler: str, directory: Path) -> Path:
    """Return a program of a compiler: gccgo's own where it is installed, else what each leaves in its programs."""
    path = directory / "program"
    if compiler == "gccgo" and (gccgo := shutil.which("gccgo") or shutil.which("gccgo-12")):
        source = directory / "main.go"
        source.write_text('package main\n\nimport "time"\n\nfunc main() { time.Sleep(time.Hour) }\n')
        subprocess.run([gccgo, "-o", path, source], check=True)
        subprocess.run([program("strip", "binutils"), path], check=True)
        return path
    (directory / "export").write_bytes(b"v3;\npackage main\n")
    source = directory / "main.c"
    source.write_text("#include <unistd.h>\nvoid tinygo_startTask(void) {}\nint main(void) { pause(); return 0; }\n")
    subprocess.run([program("gcc", "gcc"), "-o", path, source], check=True)
    section = ["--add-section", f".go_export={directory / 'export'}"] if compiler == "gccgo" else []
    if section:
        subprocess.run([program("objcopy", "binutils"), *section, "--strip-all", path], check=True)
    return path


def test_a_c_program_is_of_no_go_compiler() -> None:
    alone = load_program(str(compiled("threads/threads.c", "-pthread")))
    assert [limit.id for limit in alone.limits] == ["not-go"]
    alone.close()
