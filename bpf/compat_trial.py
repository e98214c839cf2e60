"""Where this kernel keeps whether a system call is a 32-bit one: found by a child of ours that makes some of each kind.

arch/x86/include/asm/thread_info.h has a bit for it, TS_COMPAT, in a word that no tracepoint shows. The child calls
getpid by turns with `syscall` and with `int 0x80`, and bpf/programs/programs.c copies how its struct task_struct begins
at each of these calls: the word is where the bit is set at all calls of the one kind and at none of the other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from gomem.bpf import syscalls

TS_COMPAT = 2
USUALLY_AT = 16  # since Linux 5.11; tried on 5.15 to 7.2
BYTES = 64  # of struct task_struct that are looked at
TRIALS = 8  # calls of each kind, a power of two
_LONGEST = 5.0  # seconds that the child may take, which needs a millisecond
_MFD_EXEC = 0x10  # Linux 6.3, where vm.memfd_noexec may want it
_LOADED_AT = 0x400000
_HEADERS = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


# What bpf/programs/programs.c is compiled with.
CONSTANTS = {"TRIAL_BYTES": BYTES, "TRIALS": TRIALS, "TS_COMPAT": TS_COMPAT}


@dataclass(frozen=True, slots=True)
class Marks:
    """What the child has in the registers of its first two arguments, by which its calls are known."""

    first: int
    second: int

    @classmethod
    def random(cls) -> Marks:
        """Return marks that nobody else has."""
        return cls(secrets.randbits(31), secrets.randbits(31))

    def packed(self) -> bytes:
        """Return them as the map trial_marks has them."""
        return struct.pack("<II", self.first, self.second)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trial showed.

    `possible`: this kernel takes 32-bit system calls of 64-bit programs; also if that could not be tried. `told`: they
    are told from others.
    """

    possible: bool
    told: bool


def settle(program: int, maps: Mapping[str, int]) -> Outcome:
    """Tell the programs where the bit is; where nothing can be tried, it is where it usually is.

    Takes the descriptors of the program on_trial and of the maps. Takes some milliseconds.
    """
    marks = Marks.random()
    syscalls.map_update(maps["trial_marks"], 0, marks.packed())
    try:
        ended = _run(program, marks)
    except (OSError, subprocess.SubprocessError):
        ended = None
    native, compat = (_seen(maps["trials"], first) for first in (0, TRIALS))
    at = USUALLY_AT if not (native and compat) else place(native, compat)
    syscalls.map_update(maps["thread_status_at"], 0, struct.pack("<I", at or 0))
    return Outcome(possible=ended != -signal.SIGSEGV, told=at is not None)


def place(native: list[bytes], compat: list[bytes]) -> int | None:
    """Return the offset of the word whose bit TS_COMPAT tells the two kinds of calls apart; None without any."""

    def always(seen: list[bytes], at: int, value: int) -> bool:
        return all(int.from_bytes(one[at : at + 4], "little") & TS_COMPAT == value for one in seen)

    places = range(4, BYTES, 4)  # an offset of 0 is none
    return next((at for at in places if always(native, at, 0) and always(compat, at, TS_COMPAT)), None)


def _seen(trials: int, first: int) -> list[bytes]:
    found = [syscalls.map_lookup(trials, first + number, BYTES) for number in range(TRIALS)]
    return found if all(any(one) for one in found) else []


def _run(program: int, marks: Marks) -> int:
    """Let the child make its calls while they are seen; return how it ended, as subprocess does."""
    memory = _memory()
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(_executable(marks))
        readable = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)  # what is open for writing is not executed
    finally:
        os.close(memory)
    try:
        link = syscalls.open_raw_tracepoint(program, "sys_enter")
        try:
            return subprocess.run([f"/proc/self/fd/{readable}"], pass_fds=(readable,), timeout=_LONGEST).returncode
        finally:
            os.close(link)
    finally:
        os.close(readable)


def _memory() -> int:
    with contextlib.suppress(OSError):
        return os.memfd_create("gomem-trial", os.MFD_CLOEXEC | _MFD_EXEC)
    return os.memfd_create("gomem-trial", os.MFD_CLOEXEC)


def _executable(marks: Marks) -> bytes:
    """Return a static program of one segment, elf(5), that makes TRIALS calls of each kind and exits with 0."""
    code = _code(marks)
    begins = _HEADERS.size + _SEGMENT.size
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADERS.pack(ident, 2, 62, 1, _LOADED_AT + begins, _HEADERS.size, 0, 0, _HEADERS.size, _SEGMENT.size, 1,
                           0, 0, 0)  # fmt: skip
    size = begins + len(code)
    return header + _SEGMENT.pack(1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 4096) + code


def _code(marks: Marks) -> bytes:
    def move(opcode: int, value: int) -> bytes:
        return bytes([opcode]) + struct.pack("<I", value)

    ax, bx, cx, di, si = 0xB8, 0xBB, 0xB9, 0xBF, 0xBE  # mov REGISTER, value
    number_of_try = b"\x89\xea"  # mov edx, ebp
    compat = move(bx, marks.first) + move(cx, marks.second) + number_of_try + move(ax, 20) + b"\xcd\x80"
    native = move(di, marks.first) + move(si, marks.second) + number_of_try + move(ax, 39) + b"\x0f\x05"
    turn = native + compat + b"\xff\xc5\x83\xfd" + bytes([TRIALS])  # inc ebp; cmp ebp, TRIALS
    back = b"\x75" + struct.pack("<b", -(len(turn) + 2))  # jne to the beginning
    return b"\x31\xed" + turn + back + move(ax, 60) + b"\x31\xff\x0f\x05"
