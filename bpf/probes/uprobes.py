"""Uprobes: what one is, and how a set of them is put on a process.

Either one uprobe_multi link for all (Linux >= 6.6, CAP_BPF and CAP_PERFMON suffice), or one perf event
each (older kernels, CAP_SYS_ADMIN), before Linux 5.15 with a copy of the program each. All are file descriptors: the
kernel detaches when they close, also by our death.

The perf events are not bound to the process: the kernel would take them off the CPU and put them on it again with the
thread that they are bound to. With twelve probes that made two context switches of that thread 4 us dearer, of 6 us
(`make bench-probes`); events of all processes and uprobe_multi links cost nothing there. The price is paid by other
processes that run the same executable: they hit the breakpoints, too, and our program sends them on at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol

from gomem.bpf import syscalls
from gomem.bpf.probes.operands import REGISTERS
from gomem.bpf.probes.uprobe_program import Attached, UprobeProgram
from gomem.tracer.errors import BackendUnavailable, NoAnswer, NotPermitted, WouldWait
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.machine.rights import Right, newer_kernel, remedy
from gomem.tracer.process.guardian import Hold

Backend = Literal["auto"] | Attached
MULTI_SINCE = (6, 6)  # the first Linux with uprobe_multi links
MAX_UPROBES = 256  # bpf/programs/targets.h: COUNTERS
ROLE_ARGS = 3
_PMU_TYPE = Path("/sys/bus/event_source/devices/uprobe/type")
_STACK = 64  # bpf/programs/programs.c: SOURCE_STACK
_SKIP_IF_BRANCH_TAKEN, _FEW_CALLERS, _MORE_ARGUMENTS = 1, 2, 4


def _argument_source(source: str) -> int:
    """Encode one source as 8 bits of place and 4 of shift."""
    place, _, factor_text = source.partition("*")
    factor = int(factor_text or 1)
    shift = factor.bit_length() - 1
    if factor != 1 << shift or shift > 15:
        raise ValueError(f"{source!r}: the factor must be a power of two up to 32768")
    if place in REGISTERS:
        return REGISTERS.index(place) | shift << 8
    if not place.startswith("stack:"):
        raise ValueError(f"{source!r} is no source of a probe's argument")
    slot, misaligned = divmod(int(place.removeprefix("stack:")), 8)
    if misaligned or not 0 <= slot < 256 - _STACK:
        raise ValueError(f"{source!r}: stack slots are multiples of 8 from 0 to {(255 - _STACK) * 8}")
    return _STACK + slot | shift << 8


def cookie(spec: UprobeSpec, index: int) -> int:
    """Pack what bpf/programs/programs.c: on_uprobe needs to know of a probe into its 64-bit cookie.

    Raises ValueError for what does not fit.
    """
    slot, misaligned = divmod(spec.return_address_offset, 8)
    if misaligned or not 0 <= slot < 256:
        raise ValueError(f"{spec.symbol}: return address at sp+{spec.return_address_offset}")
    if not 0 <= index < MAX_UPROBES or len(spec.args) > ROLE_ARGS:
        raise ValueError(f"{spec.symbol}: at most {MAX_UPROBES} probes with {ROLE_ARGS} arguments each")
    flags = _SKIP_IF_BRANCH_TAKEN * spec.skip_if_branch_taken | _MORE_ARGUMENTS * bool(spec.operands)
    # Memory that was scavenged is taken again span by span: of all rare roles, this can be a frequent one.
    flags |= _FEW_CALLERS * (spec.kind is EventKind.USED)
    packed = index | int(spec.kind) << 8 | slot << 16 | flags << 24
    for position, source in enumerate(spec.args):
        packed |= _argument_source(source) << (28 + 12 * position)
    return packed


def counter_of(packed: int) -> int:
    """Return which counter a cookie names."""
    return packed & 0xFF


def short_cookie(spec: UprobeSpec, index: int) -> int:
    """Return the cookie of a uprobe whose arguments are in the program's map (bpf/probes/operands.py)."""
    if not 0 <= index < MAX_UPROBES:
        raise ValueError(f"{spec.symbol}: at most {MAX_UPROBES} probes")
    return index | int(spec.kind) << 8 | (_SKIP_IF_BRANCH_TAKEN * spec.skip_if_branch_taken) << 24


def kernel_release() -> tuple[int, int]:
    """Return the running kernel's version and patchlevel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


def uprobe_pmu_type() -> int | None:
    """Return the perf type of uprobes, or None if this kernel has none."""
    try:
        return int(_PMU_TYPE.read_text())
    except (OSError, ValueError):
        return None


class Keeper(Protocol):
    """Who holds the descriptors that keep uprobes on (tracer/process/guardian.py: class Guardian)."""

    def ensure_all_answer(self, pid: int) -> None:
        """Return when attaching waits for no process. Raises NoAnswer, OSError."""

    def hold(self, fds: Sequence[int], pid: int, *, dear: bool = False) -> Hold:
        """Take descriptors over. Raises OSError."""


def attach_held(
    keeper: Keeper,
    program: UprobeProgram,
    specs: Sequence[UprobeSpec],
    pid: int,
    cookies: Mapping[UprobeSpec, int] | None = None,
    *,
    dear: bool = False,
) -> tuple[Hold | None, list[SkippedUprobe]]:
    """Attach uprobes as `attach` does, and have them held elsewhere; None if there is none.

    Raises NotPermitted, WouldWait where a process would make the kernel wait, BackendUnavailable if none can be held.
    """
    try:
        keeper.ensure_all_answer(pid)
        held, skipped = attach(program, specs, pid, cookies)
        return (keeper.hold(held, pid, dear=dear) if held else None), skipped
    except NoAnswer as error:
        raise WouldWait(f"no probe was put on: {error.what}", error.fix) from error
    except OSError as error:
        raise BackendUnavailable(f"gomem's own process that holds probes does not work: {error.strerror}") from error


def attach(
    program: UprobeProgram,
    specs: Sequence[UprobeSpec],
    pid: int,
    cookies: Mapping[UprobeSpec, int] | None = None,
) -> tuple[list[int], list[SkippedUprobe]]:
    """Attach all `specs`; return the fds that keep them attached, and those that could not be.

    `cookies` are what the program is told of each, by default `cookie` of its position. Raises NotPermitted.
    """
    if cookies is None:
        cookies = {spec: cookie(spec, index) for index, spec in enumerate(specs)}
    if program.backend != "multi":
        return _each(specs, lambda spec: _attach_perf(program, spec, cookies[spec]), Right.PERF_UPROBES)
    # Before 6.10 the filter compares thread ids, so it would drop the hits of all threads but one.
    filter_pid = pid if kernel_release() >= (6, 10) else 0
    held: list[int] = []
    skipped: list[SkippedUprobe] = []
    for _, group in groupby(sorted(specs, key=lambda spec: spec.path), key=lambda spec: spec.path):
        members = list(group)
        try:
            held += _attach_multi(program.fd, members, cookies, filter_pid)
        except PermissionError as error:
            close_all(held)
            raise _refused(error, Right.BPF) from error
        except OSError:  # one bad place fails them all; find it
            some = _each(members, lambda spec: _attach_multi(program.fd, [spec], cookies, filter_pid), Right.BPF)
            held += some[0]
            skipped += some[1]
    return held, skipped


def _attach_multi(program: int, specs: Sequence[UprobeSpec], cookies: Mapping[UprobeSpec, int], pid: int) -> list[int]:
    offsets = [spec.offset for spec in specs]
    return [syscalls.link_uprobe_multi(program, specs[0].path, offsets, [cookies[spec] for spec in specs], pid)]


def _attach_perf(program: UprobeProgram, spec: UprobeSpec, packed: int) -> list[int]:
    pmu_type = uprobe_pmu_type()
    if pmu_type is None:
        raise OSError(errno.ENOENT, "no uprobe PMU")
    perf_fd = syscalls.open_uprobe(pmu_type, spec.path, spec.offset, 0)
    try:
        held = program.run_at(perf_fd, packed)
        syscalls.enable(perf_fd)
    except OSError:
        os.close(perf_fd)
        raise
    return [*held, perf_fd]


def _each(
    specs: Iterable[UprobeSpec], attach_one: Callable[[UprobeSpec], list[int]], right: Right
) -> tuple[list[int], list[SkippedUprobe]]:
    held: list[int] = []
    skipped: list[SkippedUprobe] = []
    for spec in specs:
        try:
            held += attach_one(spec)
        except PermissionError as error:
            close_all(held)
            raise _refused(error, right) from error
        except OSError as error:
            skipped.append(SkippedUprobe(spec, error.strerror or str(error)))
    return held, skipped


def _refused(error: OSError, right: Right) -> NotPermitted:
    name = "uprobes" if right is Right.BPF else right.value[0]
    return NotPermitted(f"{name} are not permitted: {error.strerror}", remedy(right))


def close_all(fds: list[int]) -> None:
    """Close and forget file descriptors."""
    while fds:
        os.close(fds.pop())


def multi_supported(program: int) -> bool:
    """Whether the kernel has uprobe_multi links. `program` was loaded for them.

    A link that names no file is refused with ENOENT or EBADF by kernels that know the type, and with EINVAL
    by those that don't.
    """
    try:
        fd = syscalls.link_uprobe_multi(program, "/proc/self/fd/none", [0], [0], 0)
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
    os.close(fd)
    return True


def no_multi() -> BackendUnavailable:
    """Return the error for a kernel without uprobe_multi links."""
    return BackendUnavailable("this kernel has no uprobe_multi links", newer_kernel(MULTI_SINCE))


def unavailable(skipped: Sequence[SkippedUprobe]) -> BackendUnavailable:
    """Return the error for when not one uprobe could be attached."""
    first = skipped[0]
    return BackendUnavailable(
        f"no uprobe could be attached; {first.spec.symbol} at {first.spec.path}+{first.spec.offset:#x}: {first.reason}"
    )
