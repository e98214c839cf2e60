"""From the functions that a role wants probed to uprobes in a file: each on its best instruction."""

from __future__ import annotations

from collections.abc import Iterable

from gomem.bpf.probes.operands import MOST_OPERANDS
from gomem.bpf.probes.placement import CODE_LIMIT, probe_site
from gomem.bpf.probes.uprobes import ROLE_ARGS
from gomem.tracer.binary.code import instructions
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import Function, FunctionTable
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import SPAN_ROLES
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.roles import Argument, Probe

_WORD = 8


def place(
    exe: Executable,
    functions: FunctionTable,
    probes: Iterable[Probe],
    path: str | None = None,
    layout: Layout | None = None,
) -> list[UprobeSpec]:
    """Return a uprobe for each of `probes` whose function the binary has.

    Fields of structs are read where the `layout` has them; without them, probes of SPAN_ROLES are left out.
    `path` is what the kernel opens; by default the descriptor that `exe` holds, which also finds a deleted file or
    one of another mount namespace, and must stay open until the source has started. Raises BackendUnavailable for
    an architecture without a decoder, for a file that others serve and for code of no file, BinaryError for a corrupt
    file.
    """
    if exe.served is not None:
        raise BackendUnavailable(
            f"its executable is on a file system ({exe.served}) that others serve: to place a probe the kernel reads "
            "the file, and would wait for them, perhaps for ever",
            "run the program from a disk of its machine, or from tmpfs",
        )
    if exe.in_memory:
        raise BackendUnavailable(
            "its executable is packed: its code is in anonymous memory, and the kernel puts probes on files only",
            "run the program unpacked",
        )
    if exe.machine != "amd64":
        raise BackendUnavailable(f"probes cannot be placed in {exe.machine} code yet")
    specs = []
    for probe in probes:
        function = _body(exe, functions.lookup(probe.symbol))
        of_span = probe.kind in SPAN_ROLES
        operands = _operands(probe.arguments, layout, every=of_span)
        if function is None or (operands is None and of_span):
            continue
        code = exe.read_up_to(function.entry, min(function.end - function.entry, CODE_LIMIT))
        registers = {f"r{name.removeprefix('r')}" for argument in probe.arguments if (name := argument.register)}
        site = probe_site(code, function.entry, intact=registers)
        specs.append(
            UprobeSpec(
                role=probe.role,
                kind=probe.kind,
                symbol=probe.symbol,
                path=path or f"/proc/self/fd/{exe.fd}",
                offset=exe.file_offset(site.address),
                args=() if of_span else _sources(probe.arguments),
                operands=operands or (),
                return_address_offset=site.return_address_offset,
                emulated=site.emulated,
                skip_if_branch_taken=site.skip_if_branch_taken,
            )
        )
    return specs


def _sources(arguments: Iterable[Argument]) -> tuple[str, ...]:
    sources = ["0"] * ROLE_ARGS
    for argument in arguments:
        if not _fits_cookie(argument):
            continue
        place = f"r{argument.register.removeprefix('r')}" if argument.register else f"stack:{argument.stack_offset}"
        sources[argument.index] = f"{place}*{1 << argument.shift}" if argument.shift else place
    return tuple(sources)


def _fits_cookie(argument: Argument) -> bool:
    return not argument.field and argument.bytes == _WORD and argument.index < ROLE_ARGS


def _operands(arguments: Iterable[Argument], layout: Layout | None, *, every: bool) -> tuple[str, ...] | None:
    """Return in the words of bpf/probes/operands.py the arguments that `_sources` cannot say, or every one.

    None where the place of one is not known.
    """
    operands = ["0"] * MOST_OPERANDS
    for argument in arguments:
        if not every and _fits_cookie(argument):
            continue
        if not argument.register:
            return None
        place = f"r{argument.register.removeprefix('r')}"
        if argument.field:
            struct, _, field = argument.field.partition(".")
            if layout is None or not layout.has(struct, field):
                return None
            place = f"[{place}+{layout.offset(struct, field)}]"
        size = f"u{8 * argument.bytes} " if argument.bytes < _WORD else ""
        operands[argument.index] = size + (f"{place}*{1 << argument.shift}" if argument.shift else place)
    return tuple(operands) if set(operands) != {"0"} else ()


def _body(exe: Executable, candidates: list[Function]) -> Function | None:
    """Choose among functions of one name: the linker's ABI wrapper calls the other, which is the body."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    entries = {hex(function.entry) for function in candidates}
    for function in candidates:
        called = {i.operands for i in instructions(exe, function) if i.mnemonic in ("call", "jmp")}
        if not called & (entries - {hex(function.entry)}):
            return function
    return candidates[0]
