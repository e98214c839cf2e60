"""The names of what goroutines wait for, against those in the runtime's source; damaged programs have none."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.wait_reasons import wait_reasons
from gomem.tracer.errors import BinaryError
from tests.support.builds import Mode, build
from tests.support.old_programs import PROGRAMS, OldProgram, old_program
from tests.support.toolchains import goroot


def found_in(path: Path) -> tuple[str, ...]:
    with Executable.open(path) as exe:
        return wait_reasons(exe, FunctionTable.find(exe))


@pytest.mark.parametrize(
    ("target", "release", "mode"),
    [
        ("parked", "1.19", "exe"), ("goroutines", "1.19", "cgo-pie"), ("parked", "1.21.13", "exe"),
        ("goroutines", "1.23.9", "pie"), ("parked", "1.25.5", "exe"), ("goroutines", "1.27.3", "cgo"),
        ("parked", "1.27.3", "exe"),
    ],
)  # fmt: skip
def test_they_are_those_of_the_runtimes_source(target: str, release: str, mode: Mode) -> None:
    source = (goroot(release) / "src/runtime/runtime2.go").read_text()
    body = re.search(r"^var waitReasonStrings = .*?^}", source, re.M | re.S)
    constants = re.search(r"^\twaitReasonZero .*?^\)", source, re.M | re.S)
    assert body is not None
    assert constants is not None
    text = dict(re.findall(r'^\t(waitReason\w+): +"(.*)",', body[0], re.M))
    names = re.findall(r"^\t(waitReason\w+)", constants[0], re.M)
    assert len(names) > 25
    found = found_in(build(target, release, mode=mode, stripped=True))
    assert list(found[: len(names)]) == [text[name] for name in names]


@pytest.mark.parametrize("program", [one for one in PROGRAMS if one.go != "go1.10.2"], ids=lambda one: one.go)
def test_releases_since_go_1_11_have_them(program: OldProgram) -> None:
    assert {"chan receive", "select", "IO wait", "sleep"} <= set(found_in(old_program(program)))


def test_a_damaged_program_has_names_that_can_be_shown_or_none(tmp_path: Path) -> None:
    path = build("parked", "1.27.3", stripped=True)
    raw = path.read_bytes()
    with Executable.open(path) as exe:
        functions = FunctionTable.find(exe)
        (function,) = functions.lookup("runtime.waitReason.String")[:1]
        code = exe.file_offset(function.entry)
    chance = random.Random(1)
    for _ in range(40):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 8)):
            damaged[code + chance.randrange(60)] = chance.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            names = found_in(tmp_path / "damaged")
        except BinaryError:
            continue
        assert all(name.isascii() and name.isprintable() and len(name) <= 64 for name in names)
