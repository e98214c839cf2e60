"""The optional role rss: the kernel's own count of the target's resident bytes, with its peak, between looks.

It sits on the tracepoint kmem:rss_stat. Its raw form has no more than a pointer to a struct of the kernel's, so it is
attached as a perf event, whose record has the figures; how the record lies in memory is read from tracefs, mounted or
not. One price of that: the kernel makes the record, with the exact sum of its per-CPU counters, at each change of any
process of the machine, before our program can tell whose it is: half a microsecond each (`make bench-probes`).

How exact it is. Since Linux 6.2 each change is traced, with the exact sum after it. Changes on several CPUs at once may
be seen in another order than they happened: then the figure lacks what was under way on the other CPUs at the last
change, a page or a batch of pages each, until the next one. Before 6.2 each thread held up to 64 changes back
(SPLIT_RSS_COUNTING in mm/memory.c), from this tracepoint and from /proc/PID/status alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gomem.bpf import syscalls
from gomem.bpf.bcc_import import RAW_TRACEPOINT, Module
from gomem.bpf.one_target import array_word, read_status, target_constants
from gomem.bpf.probes.tracefs import Tracefs, Tracepoint
from gomem.bpf.program import TargetIds, possible_cpus
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.machine.rights import newer_kernel

SOURCE = Path(__file__).parent / "programs" / "rss.c"
_TRACEPOINT = 5  # enum bpf_prog_type
_MEMBERS = ("MM_ANONPAGES", "MM_FILEPAGES", "MM_SHMEMPAGES", "MM_SWAPENTS")  # in the order of an RSS event
_RESIDENT = 3  # of them are in RAM
# Before Linux 5.15 the tracepoint does not tell its numbers: enum of include/linux/mm_types_task.h, the same since 4.5.
_NUMBERS = {"MM_FILEPAGES": 0, "MM_ANONPAGES": 1, "MM_SWAPENTS": 2, "MM_SHMEMPAGES": 3}
_FIELDS = {"mm_id": 4, "curr": 4, "member": 4, "size": 8}  # bytes
_SPACE, _ROUND = 0, 2  # bpf/programs/rss.c: facts
_FACTS = 3
_NO_SPACE = (1 << 64) - 1

# bpf/programs/rss.c: struct peak, struct tally
PEAK = np.dtype([("round", "<u8"), ("space", "<u8"), ("size", "<i8"), ("total", "<i8")])
TALLY = np.dtype([("time", "<u8"), ("space", "<u8"), ("size", "<i8"), ("changes", "<u8"), ("peaks", PEAK, (2,))])
Sizes = NDArray[np.int64]  # shape (4,): bytes in the order of _MEMBERS
Tallies = NDArray[np.void]  # shape (4, CPUs), dtype TALLY


def rss_stat() -> tuple[Tracepoint, list[int]]:
    """Return the tracepoint and the kernel's numbers of _MEMBERS. Raises NotPermitted or BackendUnavailable."""
    with Tracefs() as tracefs:
        tracepoint = tracefs.tracepoint("kmem", "rss_stat")
    if tracepoint is None or any(tracepoint.fields.get(name, (0, 0))[1] != size for name, size in _FIELDS.items()):
        raise BackendUnavailable("this kernel does not trace the resident pages of processes", newer_kernel((5, 6)))
    members = [(tracepoint.symbols or _NUMBERS).get(name, -1) for name in _MEMBERS]
    if sorted(members) != list(range(len(_MEMBERS))):
        raise BackendUnavailable("this kernel counts resident pages of kinds that gomem does not know")
    return tracepoint, members


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tallies say at one moment: bytes now and at the peak of a round, and changes so far."""

    now: Sizes
    peak: Sizes
    total_peak: int
    changes: int


def read_tallies(tallies: Tallies, base: Sizes, space: int, round_: int) -> Reading:
    """Sum up what each CPU has seen; `base`: what holds for members that have not changed. Pure."""
    mine = (tallies["space"] == space) & (tallies["time"] > 0)
    newest = np.where(mine, tallies["time"], 0).argmax(axis=1)
    rows = np.arange(len(tallies))
    now = np.where(mine.any(axis=1), tallies["size"][rows, newest], base)
    peaks = tallies["peaks"]
    # The round that has just ended, and what came since: nobody knows when exactly it ended.
    fresh = (peaks["space"] == space) & ((peaks["round"] == round_) | (peaks["round"] == round_ + 1))
    peak = np.maximum(now, np.where(fresh, peaks["size"], 0).max(axis=(1, 2)))
    total = np.where(fresh, peaks["total"], 0).max()
    return Reading(now, peak, max(int(total), int(now[:_RESIDENT].sum())), int(tallies["changes"].sum()))


class ResidentBytes:
    """Follows the resident bytes of one process, from `attach` on."""

    def __init__(self, pid: int, ids: TargetIds) -> None:
        """Compile and load. Raises BackendUnavailable or NotPermitted."""
        self._pid = pid
        tracepoint, self._members = rss_stat()
        self._tracepoint = tracepoint.id
        constants = {f"{name.upper()}_AT": tracepoint.fields[name][0] for name in _FIELDS}
        constants |= dict(zip(("ANON", "FILE", "SHMEM"), self._members, strict=False))
        constants |= {"TALLY_BYTES": TALLY.itemsize, "FACTS": _FACTS}
        self._module = Module(SOURCE, constants | target_constants(ids))
        self._program = -1
        self._round = 0
        self._base_space = 0  # the address space that `_base` is of
        self._base = np.zeros(len(_MEMBERS), np.int64)
        self._told: Reading | None = None
        self._told_space = 0

    def attach(self, held: list[int]) -> None:
        """Load, and see what is rare; what is appended to `held` keeps it attached.

        Raises OSError and as the constructor does.
        """
        on_exec = self._module.load("on_rss_exec", RAW_TRACEPOINT)
        held.append(syscalls.open_raw_tracepoint(on_exec, "sched_process_exec"))
        self._program = self._module.load("on_rss_stat", _TRACEPOINT)
        self._module.forget_compiler()

    def begin(self, dear: list[int]) -> None:
        """Begin to follow, or go on; what is appended to `dear` keeps it attached. Raises OSError."""
        self._forget_sizes()
        perf_fd = syscalls.open_tracepoint(self._tracepoint)
        dear.append(perf_fd)
        dear += syscalls.run_at_perf_event(self._program, perf_fd)
        self._take_base()

    def _forget_sizes(self) -> None:
        """Take what CPUs saw before for old: nobody knows what has happened since. The changes stay counted."""
        tallies = self._tallies().copy()
        tallies["time"] = 0
        tallies["peaks"]["space"] = _NO_SPACE
        for member, of_cpus in zip(self._members, tallies, strict=True):
            syscalls.map_update(self._module.map_fd("tallies"), member, of_cpus.tobytes())
        self._base_space = array_word(self._module.map_fd("facts"), _SPACE)

    def _take_base(self) -> None:
        """Learn the figures of members that do not change meanwhile; the others tell theirs when they change."""
        status = read_status(self._pid)
        seen = (status.rss_anon, status.rss_file, status.rss_shmem, status.vm_swap)
        self._base = np.array([size or 0 for size in seen], np.int64)
        unchanged = self._tallies()["time"].max(axis=1) == 0
        latest = self._module.map_fd("latest")
        for member, size, still in zip(self._members, self._base.tolist(), unchanged.tolist(), strict=True):
            if still:
                syscalls.map_update(latest, member, size.to_bytes(8, "little"))

    def _tallies(self) -> Tallies:
        cpus = possible_cpus()
        tallies = self._module.map_fd("tallies")
        raw = [syscalls.map_lookup(tallies, member, TALLY.itemsize * cpus) for member in self._members]
        return np.frombuffer(b"".join(raw), TALLY).reshape(len(raw), cpus)

    def take(self, execs: int, over: Callable[[], bool]) -> EventBatch:
        """Return an RSS and an RSS_PEAK event of this moment if there was a change since the last ones.

        `execs`: how many programs the process has executed as far as others were told; what the next one has waits.
        `over`: is the process gone? Then its last figures may be of its dismantling, and only the peak is told.
        """
        facts = self._module.map_fd("facts")
        space = array_word(facts, _SPACE)
        if space != execs:
            return no_events()
        round_, self._round = self._round, self._round + 1
        syscalls.map_update(facts, _ROUND, self._round.to_bytes(8, "little"))
        base = self._base if space == self._base_space else np.zeros_like(self._base)
        reading = read_tallies(self._tallies(), base, space, round_)
        before = self._told
        if before is not None and before.changes == reading.changes and self._told_space == space:
            return no_events()
        self._told, self._told_space = reading, space
        events = self._events(reading, before)
        return events[1:] if over() else events

    def _events(self, reading: Reading, before: Reading | None) -> EventBatch:
        events = np.zeros(2, EVENT)
        events["kind"] = EventKind.RSS, EventKind.RSS_PEAK
        events["tid"] = self._pid
        events["time"] = time.monotonic_ns()
        args = events["args"]
        args[0, :4] = np.maximum(reading.now, 0)
        args[0, 4] = reading.changes - (before.changes if before else 0)
        args[1, :4] = np.maximum(reading.peak, 0)
        args[1, 4] = max(reading.total_peak, 0)
        return events

    def probes(self) -> list[ProbeStatus]:
        """Return the tracepoint with its hits."""
        return [ProbeStatus("rss", "kmem:rss_stat", int(self._tallies()["changes"].sum()))]

    def close(self) -> None:
        """Free the kernel's memory. Idempotent."""
        self._module.close()
