"""Where in a Go function a uprobe belongs: on an instruction that the kernel emulates.

A breakpoint on most instructions makes the kernel single-step a copy of them: two traps, and about 30
times the price of one that it emulates (arch/x86/kernel/uprobes.c: push of a register, nop, relative
call and jmp, conditional jumps). Go's prologue offers one nearly everywhere:

- Go 1.21 and later push the frame pointer right after the stack check;
- before that, the check's own `jbe` is a conditional jump. There the probe also sees calls that go to
  morestack and come again, so the program must ignore a hit whose branch will be taken.

A function without a check (nosplit) is searched from its entry, as long as its arguments are
untouched and its return address is at a known place.

Pure: bytes in, a place out. The stack check's forms are those of stacksplit in
cmd/internal/obj/x86/obj6.go, Go 1.17 to 1.27.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from capstone import CS_AC_WRITE, CS_ARCH_X86, CS_MODE_64, Cs, CsInsn
from capstone.x86 import (
    X86_INS_CMP,
    X86_INS_LEA,
    X86_INS_MOV,
    X86_INS_SUB,
    X86_OP_IMM,
    X86_OP_MEM,
    X86_OP_REG,
    X86_REG_FS,
    X86_REG_RIP,
    X86_REG_RSP,
    X86OpMem,
)

ARGUMENT_REGISTERS = ("rax", "rbx", "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11")  # ABIInternal, abi-internal.md
CODE_LIMIT = 1 << 14  # bytes of a function that are looked at
_PROLOGUE = 12  # instructions within which a stack check ends
_DEEPEST = 1024  # bytes below the return address at which a search ends
_SEARCH = 24  # instructions of a nosplit function that are searched
_STACK_GUARDS = (0x10, 0x18)  # g.stackguard0, g.stackguard1
_JBE = ("jbe", "ja")
_ENDBR64 = bytes.fromhex("f30f1efa")


@dataclass(frozen=True, slots=True)
class ProbeSite:
    """An instruction to probe, always at a boundary."""

    address: int
    offset_from_entry: int
    emulated: bool  # the kernel emulates it; else it single-steps
    past_stack_check: bool  # a call is seen once, though morestack enters the function again; False without a check
    return_address_offset: int  # bytes from the stack pointer to the return address, at this instruction
    skip_if_branch_taken: bool = False  # on the check's `jbe`: a hit with CF or ZF set is not a call yet


def probe_site(code: bytes, address: int, intact: Collection[str] = ARGUMENT_REGISTERS) -> ProbeSite:
    """Choose the instruction to probe in the function whose bytes are `code` and whose entry is at `address`.

    `intact` names the registers that must still hold what the caller put there. Never fails: where
    nothing better is found, or the bytes are no code, it is the entry.
    """
    code = code[:CODE_LIMIT]
    instructions = _decode(code, address)
    targets = _branch_targets(code, address)
    check = _stack_check(instructions)
    if check is None:
        return _search(instructions, address, targets, intact) or _entry(address)
    branch = instructions[check]
    if check + 1 < len(instructions):
        after = instructions[check + 1]
        if is_emulated(bytes(after.bytes)) and after.address not in targets:
            return _site(after, address, past_stack_check=True)
    if branch.mnemonic == "jbe" and is_emulated(bytes(branch.bytes)) and branch.address not in targets:
        return _site(branch, address, past_stack_check=True, skip_if_branch_taken=True)
    if check + 1 < len(instructions):
        return _site(instructions[check + 1], address, past_stack_check=True)
    return _entry(address)


def is_emulated(instruction: bytes) -> bool:
    """Whether every kernel since 5.0 emulates this x86-64 instruction under a uprobe."""
    first, second, length = instruction[:1], instruction[1:2], len(instruction)
    return (
        (length == 1 and (b"\x50" <= first <= b"\x57" or first == b"\x90"))  # push, nop
        or (length == 2 and first == b"\x41" and b"\x50" <= second <= b"\x57")  # push of r8 to r15
        or instruction == b"\x66\x90"  # nop of two bytes
        or (length == 5 and first in (b"\xe8", b"\xe9"))  # call, jmp
        or (length == 2 and (first == b"\xeb" or b"\x70" <= first <= b"\x7f"))  # short jmp, jcc
        or (length == 6 and first == b"\x0f" and b"\x80" <= second <= b"\x8f")  # near jcc
    )


def _decode(code: bytes, address: int) -> list[CsInsn]:
    """Decode the first instructions with all detail."""
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    return list(decoder.disasm(code, address, _SEARCH))


def _branch_targets(code: bytes, address: int) -> frozenset[int]:
    """Return where direct jumps inside the function lead, without those to its entry (after morestack)."""
    jumps = (
        operand for _, _, name, operand in Cs(CS_ARCH_X86, CS_MODE_64).disasm_lite(code, address) if name[0] == "j"
    )
    return frozenset(int(operand, 16) for operand in jumps if operand.startswith("0x")) - {address}


def _stack_check(instructions: list[CsInsn]) -> int | None:
    """Return the index of the conditional jump that ends the stack check, or None where there is none."""
    stack_like = {X86_REG_RSP}
    for index, instruction in enumerate(instructions[:_PROLOGUE]):
        if _compares_with_guard(instruction, stack_like):
            follows = instructions[index + 1] if index + 1 < len(instructions) else None
            return index + 1 if follows is not None and follows.mnemonic in _JBE else None
        if not _prepares_check(instruction, stack_like):
            return None
    return None


def _compares_with_guard(instruction: CsInsn, stack_like: set[int]) -> bool:
    if instruction.id != X86_INS_CMP:
        return False
    left, right = instruction.operands
    return bool(
        left.type == X86_OP_REG
        and left.reg in stack_like
        and right.type == X86_OP_MEM
        and right.mem.index == 0
        and right.mem.disp in _STACK_GUARDS
    )


def _prepares_check(instruction: CsInsn, stack_like: set[int]) -> bool:
    """Whether it may stand before the comparison; learns which registers hold a lowered stack pointer."""
    if bytes(instruction.bytes) == _ENDBR64 or instruction.mnemonic in ("jb", "jae"):
        return True
    if len(instruction.operands) != 2 or instruction.operands[0].type != X86_OP_REG:
        return False
    target, source = instruction.operands
    if target.reg == X86_REG_RSP:
        return False
    if instruction.id == X86_INS_LEA and source.mem.base == X86_REG_RSP and source.mem.index == 0:
        stack_like.add(target.reg)
        return True
    if instruction.id == X86_INS_MOV and source.type == X86_OP_REG and source.reg == X86_REG_RSP:
        stack_like.add(target.reg)
        return True
    if instruction.id == X86_INS_SUB:
        return target.reg in stack_like
    return instruction.id == X86_INS_MOV and (
        source.type == X86_OP_IMM or (source.type == X86_OP_MEM and _loads_g(source.mem))
    )


def _loads_g(memory: X86OpMem) -> bool:
    """Whether it reads g from thread-local storage, or its place there (`mov $-8,%r14; mov %fs:(%r14),%r14`)."""
    return bool(memory.segment == X86_REG_FS or memory.base == X86_REG_RIP)


def _search(
    instructions: list[CsInsn], entry: int, targets: frozenset[int], intact: Collection[str]
) -> ProbeSite | None:
    """Find the first emulated instruction on the straight line from the entry of a function without a check."""
    lowered = 0  # how far the stack pointer is below the return address
    for instruction in instructions[:_SEARCH]:
        if instruction.address in targets:
            return None
        if is_emulated(bytes(instruction.bytes)):
            return _site(instruction, entry, return_address_offset=lowered)
        moved = _stack_moves(instruction)
        if moved is None or _spoils(instruction, lowered, intact):
            return None
        lowered += moved
        if not 0 <= lowered <= _DEEPEST:
            return None
    return None


def _stack_moves(instruction: CsInsn) -> int | None:
    """How far it lowers the stack pointer in bytes; None if that is unknown or it leaves the straight line."""
    if instruction.mnemonic.startswith(("j", "call", "ret", "loop", "int", "ud", "syscall", "hlt", "enter", "leave")):
        return None
    _, written = instruction.regs_access()
    if X86_REG_RSP not in written:
        return 0
    operands = instruction.operands
    by_constant = (
        len(operands) == 2
        and operands[0].type == X86_OP_REG
        and operands[0].reg == X86_REG_RSP
        and operands[1].type == X86_OP_IMM
    )
    if not by_constant or instruction.mnemonic not in ("sub", "add"):
        return None
    return int(operands[1].imm) if instruction.mnemonic == "sub" else -int(operands[1].imm)


def _spoils(instruction: CsInsn, lowered: int, intact: Collection[str]) -> bool:
    """Whether it overwrites an argument register, or may overwrite the return address or stack arguments."""
    _, written = instruction.regs_access()
    for register in written:
        if _full_register(str(instruction.reg_name(register))) in intact:
            return True
    return any(
        operand.type == X86_OP_MEM
        and operand.access & CS_AC_WRITE
        and not _harmless_store(operand.mem, lowered, intact)
        for operand in instruction.operands
    )


def _harmless_store(memory: X86OpMem, lowered: int, intact: Collection[str]) -> bool:
    """Whether it lands in the function's own frame or, where arguments come in registers, in their spill area."""
    if memory.base != X86_REG_RSP or memory.index != 0:
        return False
    return bool(memory.disp < lowered or (intact and memory.disp >= lowered + 8))


def _full_register(name: str) -> str:
    """Return the 64-bit register that `name` is a part of."""
    if name.startswith("r") and name[1:2].isdigit():
        return name.rstrip("dwb")
    short = name.removeprefix("r").removeprefix("e")
    if len(short) == 2 and short[1] in "lh":
        short = short[0] + "x" if short[0] in "abcd" else short
    return "r" + short.removesuffix("l") if len(short) == 3 else "r" + short


def _site(
    instruction: CsInsn,
    entry: int,
    *,
    past_stack_check: bool = False,
    return_address_offset: int = 0,
    skip_if_branch_taken: bool = False,
) -> ProbeSite:
    return ProbeSite(
        address=instruction.address,
        offset_from_entry=(instruction.address - entry) % (1 << 64),  # the decoder's addresses wrap
        emulated=is_emulated(bytes(instruction.bytes)),
        past_stack_check=past_stack_check,
        return_address_offset=return_address_offset,
        skip_if_branch_taken=skip_if_branch_taken,
    )


def _entry(address: int) -> ProbeSite:
    return ProbeSite(address, 0, False, False, 0)
