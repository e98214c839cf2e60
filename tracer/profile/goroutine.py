"""The goroutine profile, read from outside: what /debug/pprof/goroutine shows, of a process that has none.

Source: goroutineProfileWithLabels and saveg in runtime/mprof.go, writeRuntimeProfile and printCountProfile in
runtime/pprof/pprof.go.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.process.memory import Words
from gomem.tracer.profile.goroutine_reader import GoroutineReader
from gomem.tracer.profile.stacks import Locations, Stacks, Symbols, complete
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Line, Location, Profile, Sample, ValueType
from gomem.tracer.runtime.goroutine_labels import LabelReader, Labels
from gomem.tracer.runtime.goroutine_stacks import CallTree
from gomem.tracer.runtime.resting import Resting
from gomem.tracer.snapshot.inspection import Inspector

TYPE = ValueType("goroutine", "count")
_CALL_HELD = 64
_RUNNING = Location(0, (Line("(running)"),))


@dataclass(frozen=True, slots=True)
class _Record:
    """Goroutines with equal stacks and labels. Of those that run, the stack is the function that they began with."""

    stack: tuple[int, ...]
    labels: Labels | None
    runs: bool


def goroutine_profile(inspector: Inspector) -> Profile:
    """Return the goroutine profile of a process as it is now; it is never stopped.

    A goroutine that runs meanwhile is shown as that, above the function that it began with: where it is, the registers
    of a CPU know. Raises TargetError where the process is not understood, SnapshotError and LayoutError where its
    goroutines make no sense, NotPermitted, TargetGone.
    """
    target, reader = inspector.target, GoroutineReader(inspector)
    code = reader.code
    locations = code.locations(read_mappings(target).mappings)
    (resting, tree), now = reader.read_stacks(), time.time_ns()
    labels = LabelReader(reader.memory, code.layout)
    counts = _records(resting, tree, reader, labels)
    target.check_same_program()
    samples = tuple(_samples(counts, locations, code.symbols))
    return Profile(
        sample_types=(TYPE,),
        samples=samples,
        locations=(*locations.all(), _RUNNING),
        mappings=locations.mappings(),
        period_type=TYPE,
        period=1,
        time_ns=now,
        comments=(f"goroutine profile of process {target.pid} ({target.exe}), read by gomem",),
        limits=(*_limits(resting, counts), *labels.limits()),
    )


def _records(resting: Resting, tree: CallTree, reader: GoroutineReader, labels: LabelReader) -> Counter[_Record]:
    """Count the program's goroutines by stack and labels: at rest and running."""
    counts: Counter[_Record] = Counter()
    own = reader.system_at_rest(resting.goroutines, resting.node, tree)
    for node, pointer, count in _groups(resting.node[~own], resting.goroutines["labels"][~own]):
        stack = reader.calls.told(tree.stack(node))
        reader.memory.room.take(len(stack), _CALL_HELD, "calls in its goroutines' stacks")
        counts[_Record(stack, labels.read(pointer), False)] += count
    running = resting.running.some(~reader.system_running(resting.running))
    for start, pointer, count in _groups(running["startpc"].astype(np.int64), running["labels"]):
        counts[_Record((start + 1,), labels.read(pointer), True)] += count
    return counts


def _groups(keys: NDArray[np.int64], pointers: Words) -> Iterator[tuple[int, int, int]]:
    """Yield each pair that there is of keys and pointers, shape (n,) both, with how often it is there."""
    different, which = np.unique(pointers, return_inverse=True)
    known, key = np.unique(keys, return_inverse=True)
    pairs, counts = np.unique(key * max(len(different), 1) + which, return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        yield int(known[pair // len(different)]), int(different[pair % len(different)]), count


def _samples(counts: Counter[_Record], locations: Locations, symbols: Symbols) -> Iterator[Sample]:
    """Yield a sample for each record, the most goroutines first, those that run at the end."""
    records = sorted(counts, key=lambda record: _key(record, counts[record]))
    first = np.array([0, *accumulate(len(record.stack) for record in records)], np.int64)
    pcs = np.array([pc for record in records for pc in record.stack], np.uint64)
    stacks = locations.of(complete(Stacks(first, pcs), symbols))
    running = len(locations.all())
    for record, stack in zip(records, stacks, strict=True):
        yield Sample((running, *stack) if record.runs else stack, (counts[record],), record.labels or ())


def _key(record: _Record, count: int) -> tuple[bool, int, str]:
    """Return what records are sorted by (keysByCount)."""
    labels = ", ".join(sorted(f'"{name}":"{value}"' for name, value in record.labels or ()))
    key = "@" + "".join(f" {pc:#x}" for pc in record.stack)
    return record.runs, -count, key if record.labels is None else f"{key}\n# labels: {{{labels}}}"


def _limits(resting: Resting, counts: Counter[_Record]) -> Iterator[Limit]:
    running = sum(count for record, count in counts.items() if record.runs)
    if running:
        why = f"{running} of {counts.total()} ran while they were read; (running) stands above what each began with"
        yield Limit("goroutines-running", "where goroutines are that run", why, "")
    broken = int(np.count_nonzero(~resting.whole))
    if broken:
        why = (
            f"the stacks of {broken} goroutines lead to what is no code of the program's; their outer calls are missing"
        )
        yield Limit("goroutines-partly", "part of some stacks", why, "")
    if resting.unreadable:
        why = f"{resting.unreadable} of the runtime's goroutines cannot be read"
        yield Limit("goroutines-unreadable", "some goroutines", why, "")
