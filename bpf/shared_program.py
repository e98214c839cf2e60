"""The BPF programs, compiled and loaded for one or many targets, and whom they take for a target."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gomem.bpf import compat_trial, kernel_functions, syscalls
from gomem.bpf.bcc_import import KPROBE, RAW_TRACEPOINT, TRACEPOINT, TRACING
from gomem.bpf.loading import Wanted, load
from gomem.bpf.memory_calls import MemoryCalls, SeenBy
from gomem.bpf.pid_namespaces import PidNamespaces
from gomem.bpf.probes import call_functions, uprobes
from gomem.bpf.probes.call_functions import ByFunctions, CallFunctions, by_kprobes, by_trampolines
from gomem.bpf.probes.operands import pack_operands
from gomem.bpf.probes.uprobe_program import Attached, Template, UprobeProgram, lift_memory_limit
from gomem.bpf.probes.uprobes import Backend, Keeper
from gomem.bpf.program import SOURCE, Counter, TargetIds, common_constants, offset_in, target_ids
from gomem.bpf.ringbuf import RingBuffer
from gomem.bpf.target_table import TargetTable, target_dtype
from gomem.bpf.tracepoints import Tracepoints
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EVENT
from gomem.tracer.process.guardian import Hold

_TGID_BITS = 24  # bpf/programs/targets.h: KEY_TGID_BITS


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the programs are made for.

    `uprobes` of each target, a power of two. `by_file`: a function's copies in several files (plugins) have a counter
    each; else they share one. `operands`: with arguments that no cookie has room for, for which there must be one
    target only. `spans`: with the program for span events, which needs `operands`. `lasting`: the tracepoints of single
    calls are used from the beginning.
    """

    targets: int
    uprobes: int
    by_file: bool
    operands: bool
    spans: bool
    lasting: bool


MANY = Capacity(targets=1024, uprobes=64, by_file=False, operands=False, spans=False, lasting=True)
ONE = Capacity(targets=1, uprobes=256, by_file=True, operands=True, spans=False, lasting=False)


ADDRESSED = np.dtype([("event", EVENT), ("target", "<u4"), ("unused", "<u4")])  # bpf/programs/targets.h: struct record

_TRACEPOINTS = {
    name: Wanted(name, RAW_TRACEPOINT)
    for name in ("on_exec", "on_exit", "on_sys_enter", "on_sys_exit", "on_compat_enter", "on_trial")
}
_EXIT_OF_GROUP = Wanted("on_exit_of_group", RAW_TRACEPOINT, required=False)
_CALLS = {name: Wanted(name, TRACEPOINT, required=False) for name in ("on_call_enter", "on_call_exit")}
_FUNCTIONS = [Wanted(name, TRACING, required=False) for name in ("on_function_enter", "on_function_exit")]
_KPROBES = [Wanted(f"on_{name}", KPROBE, later=True) for name in ("native_kprobe", "compat_kprobe", "kretprobe")]
_UPROBES, _SPANS = "on_uprobe", "on_span_uprobe"


class TargetPrograms:
    """A SharedProgram as the governed uprobes of one target see it; implements gomem.bpf.switchable_uprobes.Probed."""

    def __init__(self, program: SharedProgram, row: Callable[[], np.void]) -> None:
        """`row` returns the target's row of the table."""
        self._program = program
        self._row = row

    def uprobe(self) -> UprobeProgram:
        """Return the uprobe program."""
        return self._program.uprobe()

    def span_uprobe(self) -> UprobeProgram:
        """Return the program for span events. Raises BackendUnavailable where there can be many targets."""
        return self._program.span_uprobe()

    def set_operands(self, index: int, packed: bytes) -> None:
        """Tell where more arguments of a uprobe are. Raises ValueError where there can be many targets."""
        self._program.set_operands(index, packed)

    def counter(self, index: int) -> int:
        """Return one of the target's counters, as it is just now."""
        return int(self._row()["counters"][index])


class SharedProgram:
    """The loaded programs and their maps. Raises what loading.load does."""

    def __init__(
        self, ring_bytes: int, wake_every: int, capacity: Capacity = MANY, backend: Backend = "auto", *,
        anew: bool = False,
    ) -> None:  # fmt: skip
        """`backend`: how uprobes are attached. Raises BackendUnavailable for "multi" where the kernel has none.

        With `anew` they are compiled in any case.
        """
        self.capacity = capacity
        row = target_dtype(capacity.uprobes)
        constants = (
            common_constants(ring_bytes, wake_every)
            | compat_trial.CONSTANTS
            | {
                "TARGETS": capacity.targets,
                "UPROBES": capacity.uprobes,
                "TARGET_BYTES": row.itemsize,
                "TARGET_COUNTERS_AT": offset_in(row, "counters"),
            }
        )
        self._namespaces = PidNamespaces(target_ids(os.getpid()), capacity.targets)
        self._tracepoints: Tracepoints | None = None
        if self._namespaces.nested:
            constants["PID_NAMESPACES"] = self._namespaces.most
        if capacity.operands:
            constants["OPERANDS"] = 1
        if capacity.spans:
            constants["SPANS"] = 1
        self._no_functions = _functions_refused()
        at_functions: list[Wanted] = []
        if self._no_functions is None:
            constants["FUNCTION_FLAGS"] = call_functions.FLAGS
            at_functions += _FUNCTIONS
        if call_functions.are_kprobes_there():
            constants["KPROBES"] = 1
            at_functions += _KPROBES
        wanted = _wanted(capacity, backend, at_functions)
        self._uprobes: dict[tuple[str, Attached], UprobeProgram] = {}
        self._functions: dict[ByFunctions, list[Template]] = {}
        self._loaded = load(SOURCE, constants, wanted, anew=anew)
        try:
            self.backend: Attached = self._backend(backend)
            if self.backend == "copies":
                lift_memory_limit()  # while we may: copies are loaded whenever there is a new target
            self.ring = RingBuffer(self._loaded.maps["events"], ring_bytes, ADDRESSED)
            self._table = TargetTable(capacity.targets, row, self._loaded.maps["targets"])
            if self._namespaces.nested:
                self._namespaces.begin(self._loaded.maps["namespaces"])
        except BaseException:
            self._loaded.close()
            raise

    def _backend(self, asked: Backend) -> Attached:
        """Return in which way uprobes are attached."""
        multi = self._loaded.program(_uprobe(_UPROBES, "multi"))
        if multi is not None and uprobes.multi_supported(multi):
            return "multi"
        if asked == "multi":
            raise uprobes.no_multi()
        return "perf" if self._loaded.program(_uprobe(_UPROBES, "perf")) is not None else "copies"

    @property
    def ring_fd(self) -> int:
        """The fd of the ring buffer."""
        return self._loaded.maps["events"]

    def attach_tracepoints(self, tells_last: bool | None = None, seen_by: SeenBy | None = None) -> None:
        """Run the programs at their tracepoints; see Tracepoints. Raises NotPermitted or BackendUnavailable."""
        self._tracepoints = Tracepoints(self, tells_last, seen_by, lasting=self.capacity.lasting)

    @property
    def calls(self) -> MemoryCalls:
        """What sees the system calls, once tracepoints have been attached."""
        assert self._tracepoints is not None
        return self._tracepoints.calls

    def try_compat(self) -> compat_trial.Outcome:
        """Find out how 32-bit calls are told from others."""
        return compat_trial.settle(self.tracepoint("on_trial"), self._loaded.maps)

    def detach_tracepoints(self) -> None:
        """Run the programs at tracepoints no more. Idempotent."""
        if self._tracepoints is not None:
            self._tracepoints.close()

    def tracepoint(self, name: str) -> int:
        """Return the fd of a raw tracepoint program."""
        return self._loaded.need(_TRACEPOINTS[name])

    def exit_of_group(self) -> int | None:
        """Return the fd of the raw tracepoint program for kernels that say which thread is the last."""
        return self._loaded.program(_EXIT_OF_GROUP)

    def call_tracepoint(self, name: str) -> int:
        """Return the fd of a program for bpf/probes/call_tracepoints.py, which needs the kernel's BTF, and Linux 5.15.

        Raises BackendUnavailable.
        """
        return self._loaded.need(_CALLS[name])

    def call_functions(self, way: ByFunctions) -> CallFunctions:
        """Run programs at the kernel's functions that are memory calls. Raises BackendUnavailable or NotPermitted."""
        if way == "kprobes":
            return CallFunctions(way, by_kprobes(*self._templates(way, _KPROBES)))
        if self._no_functions is not None:
            raise self._no_functions
        return CallFunctions(way, by_trampolines(*self._templates(way, _FUNCTIONS)))

    def _templates(self, way: ByFunctions, wanted: Sequence[Wanted]) -> list[Template]:
        if way not in self._functions:
            self._functions[way] = [self._loaded.need_template(one) for one in wanted]
        return self._functions[way]

    def uprobe(self) -> UprobeProgram:
        """Return the program that runs at uprobes. Raises BackendUnavailable."""
        return self.uprobe_by(self.backend)

    def uprobe_by(self, way: Attached) -> UprobeProgram:
        """Return that for a way of attaching it, which need not be the one that is used. Raises BackendUnavailable."""
        return self._for_uprobes(_UPROBES, way)

    def span_uprobe(self) -> UprobeProgram:
        """Return the program for span events. Raises BackendUnavailable."""
        if not self.capacity.spans:
            raise BackendUnavailable("there are no span events of many processes", "use gomem trace --with spans")
        return self._for_uprobes(_SPANS, self.backend)

    def _for_uprobes(self, function: str, way: Attached) -> UprobeProgram:
        if (function, way) not in self._uprobes:
            wanted = _uprobe(function, way)
            if wanted.template:
                made = UprobeProgram(way, template=self._loaded.need_template(wanted))
            else:
                made = UprobeProgram(way, self._loaded.need(wanted))
            self._uprobes[function, way] = made
        return self._uprobes[function, way]

    def set_operands(self, index: int, packed: bytes) -> None:
        """Tell where more arguments of a uprobe are (bpf/probes/operands.py). Raises ValueError without `operands`."""
        if not self.capacity.operands:
            raise ValueError(f"uprobe {index} of programs without operands, not {packed!r}")
        syscalls.map_update(self._loaded.maps["operands"], index, packed)

    def counter(self, index: int) -> int:
        """Return one of the counters, of all targets together."""
        return self._table.counter(index)

    def attach(
        self,
        keeper: Keeper,
        specs: Sequence[UprobeSpec],
        pid: int,
        cookies: Mapping[UprobeSpec, int],
    ) -> tuple[Hold | None, list[SkippedUprobe]]:
        """Put uprobes on one process; see uprobes.attach_held. `cookies` have their counters."""
        if self.capacity.operands:
            for spec in specs:
                if spec.operands:
                    self.set_operands(uprobes.counter_of(cookies[spec]), pack_operands(spec.operands, on=True))
        return uprobes.attach_held(keeper, self.uprobe(), specs, pid, cookies)

    def enter(self, ids: TargetIds, budget: int) -> int:
        """Make a process a target, with a budget of events a second; return its slot. Raises BackendUnavailable."""
        self._table.ensure_room()
        namespace = self._namespaces.number_of(ids)
        key = ids.tgid | namespace << _TGID_BITS
        slot = self._table.take(key, budget)
        try:
            syscalls.map_update(self._loaded.maps["slots"], key, struct.pack("<I", slot))
        except OSError:
            self._table.give_back(slot)
            raise
        self._namespaces.enter(namespace)
        return slot

    def forget(self, slot: int) -> None:
        """Let the kernel find the process no more, so that another may have its id. The row stays readable."""
        with contextlib.suppress(FileNotFoundError):  # the kernel removed it when the process ended
            syscalls.map_delete(self._loaded.maps["slots"], self._table.key(slot))

    def release(self, slot: int) -> None:
        """Let another target have the slot of one that was forgotten."""
        self._namespaces.leave(self._table.key(slot) >> _TGID_BITS)
        self._table.row(slot)["counters"][Counter.COMPAT_HITS] = 0  # nobody makes such calls any more
        self._table.give_back(slot)

    def row(self, slot: int) -> np.void:
        """Return the target's row of the table: what is read is what the kernel has just now."""
        return self._table.row(slot)

    def close(self) -> None:
        """Detach, and close maps and programs. A row that somebody still has keeps the table's memory."""
        self.detach_tracepoints()
        self.ring.close()
        for program in self._uprobes.values():
            program.close()
        while self._functions:
            for template in self._functions.popitem()[1]:
                template.close()
        self._loaded.close()
        self._table.close()


def _uprobe(function: str, way: Attached, *, required: bool = False) -> Wanted:
    attach_type = syscalls.BPF_TRACE_UPROBE_MULTI if way == "multi" else -1
    return Wanted(function, KPROBE, attach_type, required, template=way == "copies")


def _functions_refused() -> BackendUnavailable | None:
    """Return why there cannot be programs at functions of the kernel."""
    try:
        kernel_functions.ensure_wanted()
    except BackendUnavailable as error:
        return error
    return None


def _wanted(capacity: Capacity, backend: Backend, at_functions: Sequence[Wanted]) -> list[Wanted]:
    """Return the programs to load: for "auto" those of all ways, since only attaching tells which one works.

    `at_functions`: those that see memory calls at functions of the kernel, if there can be any.
    """
    ways: list[Attached] = ["multi", "perf", "copies"] if backend == "auto" else [backend]
    found = [*_TRACEPOINTS.values(), _EXIT_OF_GROUP, *_CALLS.values(), *at_functions]
    for way in ways:
        found.append(_uprobe(_UPROBES, way, required=way == ways[-1]))
        if capacity.spans:
            found.append(_uprobe(_SPANS, way, required=False))
    return found
