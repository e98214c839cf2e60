from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.discovery.recognition import Latest, ProgramKind, Recognition, Recognized
from tests.support.samples.executables import BUILD_MAGIC, DATA, TEXT, Elf, Part, elf_file

CODE = Part(".text", TEXT, b"\x90" * 64, 5)
INFO = BUILD_MAGIC + b"\x08\x02" + bytes(16) + b"\x06go1.25" + b"\0" * 16
GO_NOTE = (b"Go\0\0", 4, b"action/content")
GNU_NOTE = (b"GNU\0", 3, bytes(range(20)))


def made(directory: Path, elf: Elf | bytes, name: str = "program") -> str:
    path = directory / name
    path.write_bytes(elf if isinstance(elf, bytes) else elf_file(elf))
    return str(path)


def kind(path: str) -> ProgramKind:
    return Recognition().recognize(path)[1].kind


@pytest.mark.parametrize("name", [".go.buildinfo", ".gopclntab", ".note.go.buildid"])
def test_a_section_that_only_the_go_linker_makes_decides(tmp_path: Path, name: str) -> None:
    assert kind(made(tmp_path, Elf([CODE, Part(name, DATA, INFO, 6)]))) is ProgramKind.GO


@pytest.mark.parametrize("headers", [True, False])
def test_the_note_of_the_go_build_id_decides_also_without_sections(tmp_path: Path, headers: bool) -> None:
    path = made(tmp_path, Elf([CODE], notes=[GNU_NOTE, GO_NOTE], section_headers=headers))
    _, recognized = Recognition().recognize(path)
    assert (recognized.kind, recognized.build_id) == (ProgramKind.GO, "action/content")


def test_without_sections_and_notes_the_build_information_in_the_data_decides(tmp_path: Path) -> None:
    data = Part(".data", DATA, bytes(4096) + INFO, 6)
    assert kind(made(tmp_path, Elf([CODE, data], section_headers=False))) is ProgramKind.GO


def test_the_magic_alone_does_not_decide(tmp_path: Path) -> None:
    unaligned = Part(".data", DATA, bytes(8) + INFO, 6)
    constant = Part(".rodata", DATA, bytes(4096) + INFO, 4)
    for part in (unaligned, constant):
        assert kind(made(tmp_path, Elf([CODE, part], section_headers=False))) is ProgramKind.NOT_GO
    # With section headers the linker's section would be there: this program only reads others' build information.
    assert kind(made(tmp_path, Elf([CODE, Part(".data", DATA, INFO, 6)]))) is ProgramKind.NOT_GO


def test_a_c_program_is_not_go_and_that_is_remembered(tmp_path: Path) -> None:
    recognition = Recognition()
    key, recognized = recognition.recognize(made(tmp_path, Elf([CODE], notes=[GNU_NOTE])))
    assert recognized == Recognized(ProgramKind.NOT_GO, recognized.why, bytes(range(20)).hex())
    assert key is not None
    assert recognition.known(key) == recognized


@pytest.mark.parametrize("raw", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x01\x01\x01" + bytes(57)])
def test_what_is_no_64_bit_elf_file_is_not_go_and_that_is_remembered(tmp_path: Path, raw: bytes) -> None:
    recognition = Recognition()
    key, recognized = recognition.recognize(made(tmp_path, raw))
    assert recognized.kind is ProgramKind.NOT_GO
    assert key is not None
    assert recognition.known(key) is recognized


def test_a_file_that_is_gone_is_not_remembered(tmp_path: Path) -> None:
    recognition = Recognition()
    key, recognized = recognition.recognize(str(tmp_path / "none"))
    assert (key, recognized.kind, len(recognition)) == (None, ProgramKind.NOT_GO, 0)


def test_a_fifo_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert stat.S_ISFIFO(os.stat(tmp_path / "fifo").st_mode)
    assert kind(str(tmp_path / "fifo")) is ProgramKind.NOT_GO


def test_other_files_with_the_same_build_id_are_the_same_program(tmp_path: Path) -> None:
    recognition = Recognition()
    elf = Elf([CODE], notes=[GO_NOTE])
    first = recognition.recognize(made(tmp_path, elf, "first"))
    second = recognition.recognize(made(tmp_path, elf, "second"))
    assert first[0] != second[0]
    assert first[1] is second[1]


def test_a_gnu_build_id_with_the_bytes_of_a_go_build_id_claims_nothing(tmp_path: Path) -> None:
    recognition = Recognition()
    claimed = b"a" * 20
    go = made(tmp_path, Elf([CODE], notes=[(b"Go\0\0", 4, claimed.hex().encode())]), "go")
    forged = made(tmp_path, Elf([CODE], notes=[(b"GNU\0", 3, claimed)]), "forged")
    assert recognition.recognize(go)[1].kind is ProgramKind.GO
    assert recognition.recognize(forged)[1].kind is ProgramKind.NOT_GO


def test_a_program_written_anew_is_another_file_even_if_size_and_mtime_are_set_back(tmp_path: Path) -> None:
    recognition = Recognition()
    go = elf_file(Elf([CODE], notes=[GO_NOTE]))
    path = made(tmp_path, elf_file(Elf([CODE])).ljust(len(go), b"\0"))
    before = os.stat(path)
    first, _ = recognition.recognize(path)
    while os.stat(path).st_ctime_ns == before.st_ctime_ns:  # the kernel's clock for files is a coarse one
        Path(path).write_bytes(go)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second, recognized = recognition.recognize(path)
    assert first is not None
    assert second == first._replace(ctime_ns=os.stat(path).st_ctime_ns)
    assert recognized.kind is ProgramKind.GO


def test_what_was_not_asked_for_longest_is_forgotten_first() -> None:
    latest: Latest[int, str] = Latest(3)
    for number in range(3):
        latest.put(number, str(number))
    assert latest.get(0) == "0"
    latest.put(3, "3")
    assert [latest.get(number) for number in range(4)] == ["0", None, "2", "3"]
    assert len(latest) == 3


def test_the_memory_of_files_is_bounded(tmp_path: Path) -> None:
    recognition = Recognition(most=4)
    keys = [recognition.recognize(made(tmp_path, Elf([CODE]), f"program{n}"))[0] for n in range(9)]
    assert len(recognition) == 4
    assert [key is not None and recognition.known(key) is not None for key in keys] == [False] * 5 + [True] * 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=12), st.integers(0, 6000))
def test_any_damage_is_answered(tmp_path: Path, damage: list[tuple[int, int]], length: int) -> None:
    raw = bytearray(elf_file(Elf([CODE, Part(".go.buildinfo", DATA, INFO, 6)], notes=[GO_NOTE])))
    for position, value in damage:
        raw[position % len(raw)] = value
    path = made(tmp_path, bytes(raw[:length]) if length < len(raw) else bytes(raw))
    assert kind(path) in ProgramKind
