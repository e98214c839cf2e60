"""A BPF program for uprobes, and how it learns which of them was hit.

All there is to know of a uprobe is in its cookie (bpf/probes/uprobes.py). Since Linux 5.15 the kernel keeps that with
what attaches the program, and the program asks for it (bpf_get_attach_cookie). Where the kernel does not know that
helper, each uprobe gets a copy of the program in which the cookie is a constant: bpf/programs/arguments.h has a place
for it. The verifier then leaves out what the constant rules out, so a copy is no dearer at a hit.
"""

from __future__ import annotations

import os
import resource
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gomem.bpf import syscalls

# One uprobe_multi link for all of them; a perf event for each; that, with a copy of the program for each.
Attached = Literal["multi", "perf", "copies"]

_MOST_COPIES = 1024  # that are kept for the next uprobe with the same cookie; some 10 KB each
_INSTRUCTION = 8  # bytes
_LOAD_WORD = 0x18  # BPF_LD | BPF_DW | BPF_IMM, of two instructions
_OF_MAP = 1  # BPF_PSEUDO_MAP_FD: the word is a map's descriptor
_CALL = bytes.fromhex("85000000")  # of a helper, whose number follows
_SET_R0 = bytes.fromhex("b700000000000000")  # r0 = 0
_MOVE = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X


@dataclass(frozen=True, slots=True)
class Template:
    """A program as the compiler left it, of which copies are made. Whoever has this closes it.

    `maps`: our descriptors of its maps, by those that the instructions have.
    """

    code: bytes
    maps: Mapping[int, int]

    def with_cookie(self, cookie: int) -> bytes:
        """Return the instructions of the copy for one cookie. Raises ValueError if nobody asks for it."""
        code = bytearray(self.code)
        call, found = None, False
        for at in range(0, len(code) - _INSTRUCTION, _INSTRUCTION):
            if code.startswith(_CALL, at):
                call = at
            elif call is not None and (register := _moved_to_itself_twice(code, at)) is not None:
                code[call : call + _INSTRUCTION] = _SET_R0
                code[at : at + 2 * _INSTRUCTION] = _load(register, cookie)
                call, found = None, True
        if not found:
            raise ValueError("the program asks for no cookie")
        return self._with_maps(code)

    def with_number(self, place: int, number: int) -> bytes:
        """Return the instructions of the copy in which registers are set to `number` where they are to `place` here."""
        code = self.code.replace(struct.pack("<hI", 0, place), struct.pack("<hI", 0, number))
        return self._with_maps(bytearray(code))

    def _with_maps(self, code: bytearray) -> bytes:
        for at, fd in maps_in(code):
            struct.pack_into("<i", code, at + 4, self.maps[fd])
        return bytes(code)

    def close(self) -> None:
        """Close the maps."""
        for fd in self.maps.values():
            os.close(fd)


def maps_of(code: bytes) -> set[int]:
    """Return the descriptors of the maps that instructions have."""
    return {fd for _, fd in maps_in(code)}


def maps_in(code: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield where in the instructions a map's descriptor is, and which."""
    at = 0
    while at < len(code):
        opcode, registers, _, immediate = struct.unpack_from("<BBhi", code, at)
        if opcode == _LOAD_WORD and registers >> 4 == _OF_MAP:
            yield at, immediate
        at += 2 * _INSTRUCTION if opcode == _LOAD_WORD else _INSTRUCTION


def _moved_to_itself_twice(code: bytes | bytearray, at: int) -> int | None:
    """Return the register of the two moves that attach_cookie (bpf/programs/arguments.h) ends with; else None."""
    opcode, registers = code[at], code[at + 1]
    one = struct.pack("<BBhi", opcode, registers, 0, 0)
    same = opcode == _MOVE and registers & 15 == registers >> 4 and code.startswith(one + one, at)
    return registers & 15 if same else None


def _load(register: int, value: int) -> bytes:
    return struct.pack("<BBhIBBhI", _LOAD_WORD, register, 0, value & 0xFFFFFFFF, 0, 0, 0, value >> 32)


class UprobeProgram:
    """A program that runs at uprobes, in one way of attaching it. Several threads may have uprobes attached."""

    def __init__(self, backend: Attached, fd: int = -1, template: Template | None = None) -> None:
        """`fd`: of the program, which whoever loaded it closes. For "copies" there is a template, which is ours."""
        self.backend: Attached = backend
        self.fd = fd
        self._template = template
        self._copies: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def run_at(self, perf_fd: int, cookie: int) -> list[int]:
        """Run it at a uprobe that was opened as a perf event; return what has to stay open beside that.

        Raises OSError.
        """
        if self._template is None:
            return [syscalls.link_perf_event(self.fd, perf_fd, cookie)]
        with self._lock:
            syscalls.set_program(perf_fd, self._copy(self._template, cookie))
        return []

    def _copy(self, template: Template, cookie: int) -> int:
        """Return the copy for a cookie. The kernel keeps it as long as a uprobe has it, and we a while longer."""
        if cookie not in self._copies:
            self._copies[cookie] = load_counted(template.with_cookie(cookie))
            if len(self._copies) > _MOST_COPIES:
                os.close(self._copies.popitem(last=False)[1])
        self._copies.move_to_end(cookie)
        return self._copies[cookie]

    def close(self) -> None:
        """Close what was made here. Idempotent."""
        with self._lock:
            while self._copies:
                os.close(self._copies.popitem()[1])
            if self._template is not None:
                self._template.close()
                self._template = None


def load_counted(
    code: bytes, program_type: int = syscalls.BPF_PROG_TYPE_KPROBE, attach_type: int = 0, name: str = "",
    function: int = 0,
) -> int:  # fmt: skip
    """Load a program. Raises OSError.

    Before Linux 5.11 programs and maps count as locked memory, of which a service usually may have 8 MB.
    """
    try:
        return syscalls.load_program(program_type, code, attach_type=attach_type, name=name, function=function)
    except PermissionError:
        if not lift_memory_limit():
            raise
        return syscalls.load_program(program_type, code, attach_type=attach_type, name=name, function=function)


def lift_memory_limit() -> bool:
    """Let this process lock any amount of memory; return whether that changed anything."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True
