"""The optional role page-faults: how often the target faults, and where; counted in the kernel, read now and then.

It sits on the raw tracepoints exceptions:page_fault_user and page_fault_kernel, which need no tracefs. They fire at
each fault of the process, in its own code or in the kernel when that uses its memory, also where the page turns out to
be there, or a fault has to be tried again: so there are a few more faults here than minor and major ones in getrusage.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gomem.bpf import syscalls
from gomem.bpf.bcc_import import RAW_TRACEPOINT, Module
from gomem.bpf.one_target import array_word, per_cpu_sum, read_status, target_constants
from gomem.bpf.program import TargetIds
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.events.source import ProbeStatus

SOURCE = Path(__file__).parent / "programs" / "page_faults.c"
GRANULES = 64  # of a region; bpf/programs/page_faults.c
MOST_REGIONS = 1 << 15
_SMALLEST_REGION = 18  # log2: 64 OS pages of 4 KB
_EXECS = 4  # programs of one process that are told apart
_EXEC = ("sched_process_exec", "on_page_fault_exec")
_FAULTS = (("page_fault_user", "on_page_fault_user"), ("page_fault_kernel", "on_page_fault_kernel"))
_SUMS = ("faults", "by_kernel", "writes", "present")

# bpf/programs/page_faults.c: struct region
REGION = np.dtype([(name, "<u8") for name in _SUMS] + [("touched", "u1", (GRANULES,))])
Programs = NDArray[np.int64]


_USER_HITS, _KERNEL_HITS = 16, 17  # bpf/programs/page_faults.c: the counters behind len(_SUMS) for each of _EXECS
_EXECUTED, _EXECUTED_AT = 0, 1  # bpf/programs/page_faults.c: facts
_BEFORE_EXEC = 1_000_000  # ns; others take the time of the same exec a moment earlier or later
_PROGRAM_SHIFT = np.uint64(56)  # bpf/programs/page_faults.c: the key of a region


def region_shift(resident: int) -> int:
    """Return log2 of the bytes of a region: half of the map has room for twice as much as is `resident`, in bytes."""
    return max(_SMALLEST_REGION, (-(-4 * resident // MOST_REGIONS) - 1).bit_length())


class PageFaults:
    """Counts the page faults of one process, from `attach` on."""

    def __init__(self, pid: int, ids: TargetIds) -> None:
        """Compile and load. Raises BackendUnavailable or NotPermitted."""
        self._pid = pid
        self._shift = region_shift(read_status(pid).vm_rss or 0)
        constants = {
            "REGION_SHIFT": self._shift,
            "REGIONS": MOST_REGIONS,
            "REGION_BYTES": REGION.itemsize,
            "EXECS": _EXECS,
            "COUNTERS": _KERNEL_HITS + 1,
        }
        self._module = Module(SOURCE, constants | target_constants(ids))
        self._programs: list[tuple[str, int]] = []  # by the tracepoint that they are for
        self._hits = 0
        self._told_execs = -1
        self._keys = np.zeros(0, np.uint64)  # of the regions that were told, rising
        self._regions = np.zeros(0, REGION)  # as they were told
        self._unplaced = np.zeros((_EXECS, len(_SUMS)), np.uint64)

    def attach(self, held: list[int]) -> None:
        """Load, and see what is rare; what is appended to `held` keeps it attached.

        Raises OSError and as the constructor does.
        """
        name, function = _EXEC
        held.append(syscalls.open_raw_tracepoint(self._module.load(function, RAW_TRACEPOINT), name))
        self._programs = [(name, self._module.load(function, RAW_TRACEPOINT)) for name, function in _FAULTS]
        self._module.forget_compiler()

    def begin(self, dear: list[int]) -> None:
        """Begin to count, or go on; what is appended to `dear` keeps it attached. Raises OSError."""
        for name, program in self._programs:
            dear.append(syscalls.open_raw_tracepoint(program, name))

    def take(self, execs: int) -> EventBatch:
        """Return what was not told yet as PAGE_FAULTS events, of this moment or of right before the last exec.

        `execs`: how many programs the process has executed as far as others were told; what the next one did waits.
        """
        hits = sum(probe.hits for probe in self.probes())
        if hits == self._hits and execs == self._told_execs:
            return no_events()
        last = min(execs, _EXECS - 1)
        placed, programs = self._fresh_regions(last)
        unplaced, their_programs = self._fresh_unplaced(last)
        # That there were none of a program yet is told, too.
        none = _events(np.zeros((int(execs != self._told_execs), len(_SUMS)), np.uint64))
        self._told_execs = execs
        events = np.concatenate((placed, unplaced, none))
        events["kind"], events["tid"] = EventKind.PAGE_FAULTS, self._pid
        facts = self._module.map_fd("facts")
        executed = array_word(facts, _EXECUTED)
        if executed <= execs:
            self._hits = hits
        events["time"] = time.monotonic_ns()
        earlier = np.concatenate((programs, their_programs)) < min(executed, last)
        events["time"][: len(earlier)][earlier] = max(array_word(facts, _EXECUTED_AT) - _BEFORE_EXEC, 0)
        return events

    def _fresh_regions(self, last: int) -> tuple[EventBatch, Programs]:
        """Return for each region with news an event, and the program that it is of."""
        raw_keys, raw = syscalls.map_entries(self._module.map_fd("regions"), REGION.itemsize, MOST_REGIONS)
        keys, regions = np.frombuffer(raw_keys, np.uint64), np.frombuffer(raw, REGION)
        order = np.argsort(keys)
        order = order[keys[order] >> _PROGRAM_SHIFT <= np.uint64(last)]
        keys, regions = keys[order], regions[order]
        before = np.zeros(len(keys), REGION)  # no region ever leaves the map
        before[np.searchsorted(keys, self._keys)] = self._regions
        self._keys, self._regions = keys, regions
        sums = np.stack([regions[name] - before[name] for name in _SUMS], axis=1)
        first_touched = (regions["touched"] != 0) & (before["touched"] == 0)
        news = sums.any(axis=1) | first_touched.any(axis=1)
        keys = keys[news]
        events = _events(sums[news])
        events["args"][:, 0] = (keys & ~(np.uint64(0xFF) << _PROGRAM_SHIFT)) << np.uint64(self._shift)
        events["args"][:, 1] = 1 << self._shift
        events["args"][:, 3] = np.packbits(first_touched[news], axis=1, bitorder="little").view(np.uint64)[:, 0]
        return events, (keys >> _PROGRAM_SHIFT).astype(np.int64)

    def _fresh_unplaced(self, last: int) -> tuple[EventBatch, Programs]:
        """Return for each program an event with what found no room in the map of regions, if that is new."""
        sums = np.array([self._counter(index) for index in range(self._unplaced.size)], np.uint64)
        sums = sums.reshape(self._unplaced.shape)[: last + 1]
        news = sums - self._unplaced[: last + 1]
        self._unplaced[: last + 1] = sums
        programs = np.flatnonzero(news.any(axis=1))
        return _events(news[programs]), programs

    def _counter(self, index: int) -> int:
        return per_cpu_sum(self._module.map_fd("counters"), index)

    def probes(self) -> list[ProbeStatus]:
        """Return the tracepoints with their hits."""
        return [
            ProbeStatus("page_faults", f"exceptions:{name}", self._counter(index))
            for name, index in (("page_fault_user", _USER_HITS), ("page_fault_kernel", _KERNEL_HITS))
        ]

    def close(self) -> None:
        """Free the kernel's memory. Idempotent."""
        self._module.close()


def _events(sums: NDArray[np.uint64]) -> EventBatch:
    """Return events for rows of _SUMS."""
    events = np.zeros(len(sums), EVENT)
    events["args"][:, 2] = sums[:, 0]
    events["args"][:, 4:6] = sums[:, 1:3]
    events["result"] = sums[:, 3].view(np.int64)
    return events
