"""The machine code of one function: its instructions, and what they refer to.

This is how a global is found in a stripped program: the runtime functions are known from the pclntab, and
their code names every global they touch by its distance from the instruction pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import capstone
from capstone import x86
from msgspec import Struct

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import Function

Access = Literal["address", "read", "write", "call"]

# No function of the runtime comes near; generated ones elsewhere do.
MAX_FUNCTION_SIZE = 1 << 18
_PADDING = b"\x00\xcc"


class Instruction(NamedTuple):
    """One decoded instruction; `operands` in Intel syntax."""

    address: int
    size: int
    mnemonic: str
    operands: str


class Reference(Struct, frozen=True):
    """What an instruction refers to: a global's address, or the function that it calls (link-time addresses).

    `access` of an instruction that reads and writes is "write". `operand_size` in bytes: how much is read or
    written; 8 for an address that is only computed, 0 for a call.
    """

    instruction: int
    target: int
    access: Access
    operand_size: int


def instructions(exe: Executable, function: Function) -> Iterator[Instruction]:
    """Yield the instructions of the function up to the padding behind it.

    BinaryError when the function is implausibly large, is not in the file, has bytes that are no
    instruction, or the machine is not supported.
    """
    raw = _code(exe, function)
    decoder = _architecture(exe).decoder()
    end = function.entry
    for address, size, mnemonic, operands in decoder.disasm_lite(raw, function.entry):
        yield Instruction(address, size, mnemonic, operands)
        end = address + size
    if raw[end - function.entry :].strip(_PADDING):
        raise exe.error(f"{function.name}: no instruction at {end:#x}")


def references(exe: Executable, function: Function) -> list[Reference]:
    """Return what the function refers to relative to the instruction pointer, in instruction order.

    These are memory operands, address computations and direct calls. Errors as for `instructions`.
    """
    return _architecture(exe).references(exe, function)


def _code(exe: Executable, function: Function) -> bytes:
    size = function.end - function.entry
    if not 0 <= size <= MAX_FUNCTION_SIZE:
        raise exe.error(f"{function.name} has {size} bytes of code")
    return exe.read(function.entry, size) if size else b""


def _amd64_decoder() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def _amd64_references(exe: Executable, function: Function) -> list[Reference]:
    raw = _code(exe, function)
    # Decoding with operand detail costs ten times as much: only what refers to something gets it.
    detailed = _amd64_decoder()
    detailed.detail = True
    found = []
    for address, size, mnemonic, operands in instructions(exe, function):
        if mnemonic == "call" and operands.startswith("0x"):
            found.append(Reference(address, int(operands, 16), "call", 0))
        elif "[rip" in operands:
            at = address - function.entry
            for instruction in detailed.disasm(raw[at : at + size], address, 1):
                found.extend(_amd64_operands(instruction))
    return found


# Capstone 5 calls the memory operand of many stores "read" (movups, cmpxchg, setcc, pextr, ...), so the
# rule is Intel's: the first operand is the destination, but for instructions that only compare or consume it.
_CONSUMERS = {
    "bt", "call", "cmp", "comisd", "comiss", "div", "fadd", "fcom", "fcomp", "fdiv", "fild", "fld", "fmul", "fsub",
    "idiv", "imul", "jmp", "ldmxcsr", "mul", "nop", "prefetchnta", "prefetcht0", "prefetcht1", "prefetcht2",
    "prefetchw", "push", "ptest", "test", "ucomisd", "ucomiss", "vptest",
}  # fmt: skip
_EXCHANGES = {"xadd", "xchg"}


def _amd64_writes(instruction: capstone.CsInsn, position: int) -> bool:
    name = instruction.mnemonic.rpartition(" ")[2]  # without "lock", "rep"
    return name in _EXCHANGES or (position == 0 and name not in _CONSUMERS)


def _amd64_operands(instruction: capstone.CsInsn) -> Iterator[Reference]:
    after = instruction.address + instruction.size
    for position, operand in enumerate(instruction.operands):
        if operand.type != x86.X86_OP_MEM or operand.mem.base != x86.X86_REG_RIP:
            continue
        target = (after + operand.mem.disp) % (1 << 64)
        if instruction.id == x86.X86_INS_LEA:
            yield Reference(instruction.address, target, "address", 8)
        else:
            access: Access = "write" if _amd64_writes(instruction, position) else "read"
            yield Reference(instruction.address, target, access, operand.size)


class _Architecture(Struct, frozen=True):
    decoder: Callable[[], capstone.Cs]
    references: Callable[[Executable, Function], list[Reference]]


_ARCHITECTURES = {"amd64": _Architecture(_amd64_decoder, _amd64_references)}


def _architecture(exe: Executable) -> _Architecture:
    known = _ARCHITECTURES.get(exe.machine)
    if known is None:
        raise exe.error(f"code for {exe.machine} cannot be decoded yet")
    return known
