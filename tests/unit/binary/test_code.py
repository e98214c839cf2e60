from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.binary.code import MAX_FUNCTION_SIZE, Reference, instructions, references
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import Function
from gomem.tracer.errors import BinaryError
from tests.support.samples.executables import TEXT, Elf, Part, elf_file, write

GLOBAL = TEXT + 0x2000


class Assembler:
    """Puts instructions one behind the other; the 4-byte distance in each reaches `target`."""

    def __init__(self) -> None:
        self.code = b""
        self.at: list[int] = []

    def add(self, opcode: str, target: int | None = None, immediate: str = "") -> None:
        self.at.append(TEXT + len(self.code))
        raw, tail = bytes.fromhex(opcode), bytes.fromhex(immediate)
        if target is not None:
            end = TEXT + len(self.code) + len(raw) + 4 + len(tail)
            raw += (target - end).to_bytes(4, "little", signed=True)
        self.code += raw + tail


def function_of(code: bytes) -> Function:
    return Function("main.f", TEXT, TEXT + len(code))


def opened(tmp_path: Path, code: bytes, machine: int = 62) -> Executable:
    elf = Elf([Part(".text", TEXT, code, 5)], machine=machine)
    return Executable.open(write(tmp_path / "program", elf_file(elf)))


def test_references_name_target_access_and_size_in_instruction_order(tmp_path: Path) -> None:
    code = Assembler()
    code.add("55")  # push rbp
    code.add("48 8d 05", GLOBAL)  # lea rax, [rip + ...]
    code.add("e8", TEXT + 0x100)  # call
    code.add("48 8b 0d", GLOBAL + 8)  # mov rcx, [rip + ...]
    code.add("89 15", GLOBAL + 16)  # mov [rip + ...], edx
    code.add("80 3d", GLOBAL + 24, immediate="00")  # cmp byte ptr [rip + ...], 0
    code.add("f0 48 0f c1 05", GLOBAL + 32)  # lock xadd [rip + ...], rax
    code.add("0f 11 05", GLOBAL + 48)  # movups [rip + ...], xmm0
    code.add("c7 05", GLOBAL + 64, immediate="01000000")  # mov dword ptr [rip + ...], 1
    code.add("48 8b 44 24 08")  # mov rax, [rsp + 8]: no global
    code.add("ff d0")  # call rax: no direct call
    code.add("ff 15", GLOBAL + 72)  # call [rip + ...]: reads a pointer
    code.add("0f b6 05", TEXT - 16)  # movzx eax, byte ptr [rip - ...]
    code.add("f0 48 0f b1 0d", GLOBAL + 80)  # lock cmpxchg [rip + ...], rcx
    code.add("0f 94 05", GLOBAL + 88)  # sete byte ptr [rip + ...]
    code.add("48 f7 25", GLOBAL + 96)  # mul qword ptr [rip + ...]
    code.add("48 87 05", GLOBAL + 104)  # xchg [rip + ...], rax
    code.add("48 ff 05", GLOBAL + 112)  # inc qword ptr [rip + ...]
    code.add("66 0f 2e 05", GLOBAL + 120)  # ucomisd xmm0, [rip + ...]
    code.add("c3")
    at = code.at
    with opened(tmp_path, code.code + b"\xcc" * 13) as exe:
        function = Function("main.f", TEXT, TEXT + len(code.code) + 13)
        assert references(exe, function) == [
            Reference(at[1], GLOBAL, "address", 8),
            Reference(at[2], TEXT + 0x100, "call", 0),
            Reference(at[3], GLOBAL + 8, "read", 8),
            Reference(at[4], GLOBAL + 16, "write", 4),
            Reference(at[5], GLOBAL + 24, "read", 1),
            Reference(at[6], GLOBAL + 32, "write", 8),
            Reference(at[7], GLOBAL + 48, "write", 16),
            Reference(at[8], GLOBAL + 64, "write", 4),
            Reference(at[11], GLOBAL + 72, "read", 8),
            Reference(at[12], TEXT - 16, "read", 1),
            Reference(at[13], GLOBAL + 80, "write", 8),
            Reference(at[14], GLOBAL + 88, "write", 1),
            Reference(at[15], GLOBAL + 96, "read", 8),
            Reference(at[16], GLOBAL + 104, "write", 8),
            Reference(at[17], GLOBAL + 112, "write", 8),
            Reference(at[18], GLOBAL + 120, "read", 8),
        ]
        assert [instruction.address for instruction in instructions(exe, function)][: len(at)] == at


def test_padding_behind_the_function_is_no_error(tmp_path: Path) -> None:
    code = b"\xc3" + bytes(2) + b"\x00"
    with opened(tmp_path, code) as exe:
        assert next(instructions(exe, function_of(code))).mnemonic == "ret"
        assert references(exe, function_of(code)) == []


def test_bytes_that_are_no_instruction_are_an_error(tmp_path: Path) -> None:
    code = b"\x90\x06\x07\xc3"
    with opened(tmp_path, code) as exe, pytest.raises(BinaryError, match="no instruction at 0x401001"):
        references(exe, function_of(code))


def test_functions_outside_the_file_or_beyond_reason_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, b"\xc3") as exe:
        for entry, size in ((TEXT, 100), (TEXT - 8, 4), (TEXT, MAX_FUNCTION_SIZE + 1), (TEXT, -1)):
            with pytest.raises(BinaryError):
                references(exe, Function("main.f", entry, entry + size))
        assert references(exe, Function("main.f", TEXT, TEXT)) == []


def test_other_machines_are_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path, b"\xc3", machine=183) as exe, pytest.raises(BinaryError, match="arm64"):
        references(exe, function_of(b"\xc3"))
