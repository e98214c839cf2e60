"""The instruction that makes 32-bit system calls, and its two bytes in the middle of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.binary import int80
from gomem.tracer.binary.executable import Executable
from tests.support.samples.executables import DATA, TEXT, Elf, Part, elf_file

R_X, R_W = 5, 6
INT_80 = b"\xcd\x80"
# mov rax, [rsp+8]; add rax, 16; mov [rsp+16], rax; test al, al; lea rdx, [rax+rax*2]; ...
CODE = bytes.fromhex("488b4424084883c010488944241084c0488d144048898424d80000004839d0") * 40
# call rel32; movabs rax, imm64; mov dword [rsp+disp32], imm32; lea rax, [rip+disp32]
WITHIN = [
    bytes.fromhex(one) for one in ("e8cd80ff00", "48b800cd80cd80000000", "c78424cd800000cd800000", "488d05cd801000")
]


def has(tmp_path: Path, code: bytes, flags: int = R_X) -> bool:
    path = tmp_path / "program"
    path.write_bytes(elf_file(Elf([Part(".text", TEXT, code, flags), Part(".data", DATA, INT_80 * 100, R_W)])))
    with Executable.open(path) as exe:
        return int80.has_int_0x80(exe)


@pytest.mark.parametrize("before", [0, 1, 5, 9, 300])
def test_the_instruction_is_found_wherever_it_stands(tmp_path: Path, before: int) -> None:
    boundary = {0: 0, 1: 0, 5: 5, 9: 9, 300: 31 * 10}[before]
    assert has(tmp_path, CODE[:boundary] + INT_80 + CODE)


@pytest.mark.parametrize("instruction", WITHIN, ids=bytes.hex)
def test_its_bytes_within_another_instruction_are_none(tmp_path: Path, instruction: bytes) -> None:
    assert not has(tmp_path, CODE + instruction + CODE)
    assert has(tmp_path, CODE + instruction + CODE + INT_80 + CODE)


def test_data_is_no_code(tmp_path: Path) -> None:
    assert not has(tmp_path, CODE)
    assert not has(tmp_path, CODE + INT_80 + CODE, flags=4)


def test_an_instruction_across_two_pieces_that_are_read_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int80, "SCAN_CHUNK", 311)  # 310 are ten rounds of CODE
    assert has(tmp_path, CODE[:310] + INT_80 + CODE)
    assert not has(tmp_path, CODE[:310] + b"\xe8\xcd\x80\xff\x00" + CODE)


def test_more_code_than_is_looked_at_may_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int80, "_MOST_CODE", 100)
    assert has(tmp_path, CODE)


@given(code=st.binary(min_size=1, max_size=600))
def test_any_bytes_have_an_answer(code: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = has(tmp_path_factory.mktemp("any"), code)
    assert not found or INT_80 in code
