"""The runtime's own heap profile, read from outside: what /debug/pprof/heap shows, of a process that has none.

Source: writeHeapProto and scaleHeapSample in runtime/pprof/protomem.go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.errors import TargetError
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.layout.layout import Layout
from gomem.tracer.profile.call_stacks import CallStacks
from gomem.tracer.profile.code import GoCode
from gomem.tracer.profile.stacks import AT_ONCE, Locations, Stacks, complete, hide_runtime
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Profile, Sample, ValueType
from gomem.tracer.runtime.profile_buckets import Buckets, Cycle, read_buckets, read_rate, required_globals
from gomem.tracer.snapshot.inspection import Inspector

SAMPLE_TYPES = (
    ValueType("alloc_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
)
_LARGEST_VALUE = float(1 << 62)
# Without one of them the linker has turned profiling off (linksetup in cmd/link/internal/ld/lib.go, Go 1.17 and later).
_READERS = ("runtime.MemProfile", "runtime.memProfileInternal")


def heap_profile(inspector: Inspector, cycle: Cycle = "published") -> Profile:
    """Return the heap profile of a process as it is now; it is never stopped.

    "published" is what its own /debug/pprof/heap would show, "active" also what is accounted to cycles that are still
    open. Raises TargetError where it keeps none, SnapshotError where that cannot be read, NotPermitted, TargetGone.
    """
    target, code = inspector.target, GoCode(inspector)
    reader, mappings = HeapReader(code), read_mappings(target).mappings
    buckets, now = reader.read(mappings, cycle), time.time_ns()
    target.check_same_program()
    locations = code.locations(mappings, foreign=True)
    samples = HeapSamples.of(buckets, reader.stacks(buckets, locations), reader.rate, code.layout)
    return Profile(
        sample_types=SAMPLE_TYPES,
        samples=samples,
        locations=locations.all(),
        mappings=locations.mappings(),
        default_type="inuse_space",
        period_type=ValueType("space", "bytes"),
        period=reader.rate,
        time_ns=now,
        comments=(f"heap profile of process {target.pid} ({target.exe}), {cycle} cycles, read by gomem",),
        limits=(*buckets.limits, *([_stopped()] if reader.rate <= 0 else [])),
    )


class HeapReader:
    """Reads the heap profile of a process; what has to be learnt only once is learnt at first."""

    def __init__(self, code: GoCode) -> None:
        """Find in the program what leads to its profile. Raises TargetError."""
        self.rate = 0  # as of the last reading
        self._code = code
        wanted = required_globals(code.layout)
        found = code.globals(wanted)
        if missing := [name for name in wanted if name not in found]:
            raise TargetError(
                f"{code.who}: {', '.join(missing)} could not be found in the code of its runtime",
                "please report the Go release and the build flags (go version -m FILE)",
            )
        self._globals = found

    def read(self, mappings: Mappings, cycle: Cycle = "published") -> Buckets:
        """Return the buckets of a process that has these mappings.

        Raises SnapshotError where they cannot be read, NotPermitted, TargetGone.
        """
        memory = self._code.inspector.memory()
        memory.start_budget()
        self.rate = read_rate(memory, self._globals)
        return read_buckets(memory, self._code.layout, self._globals, _own_memory(mappings), cycle)

    def stacks(self, buckets: Buckets, locations: Locations) -> CallStacks:
        """Return for each bucket the indices of its stack's locations, as runtime/pprof makes them.

        Raises TargetError where profiling is off.
        """
        symbols = self._code.symbols
        # What is sampled before the rate is set, the runtime has allocated.
        if self.rate <= 0 and all(map(symbols.is_runtime, buckets.addresses.tolist())):
            raise _is_off(self._code)
        pieces = Stacks.of(buckets.first, buckets.which, buckets.addresses).pieces(AT_ONCE)
        return locations.of_each(complete(hide_runtime(some, symbols), symbols) for some in pieces)


def _own_memory(mappings: Mappings) -> Ranges:
    """Return where the process has memory of its own that it may write to: its runtime's is nowhere else."""
    own = mappings.writable & ~mappings.shared & (mappings.inode == 0) & (mappings.device == 0)
    return normalise(mappings.start[own], mappings.end[own])


def _is_off(code: GoCode) -> TargetError:
    who, program = f"{code.who} keeps no heap profile", code.inspector.program
    instead = f"what it allocates from now on: gomem profile {code.inspector.target.pid} --source refill"
    if "disableMemoryProfiling" in code.layout.globals and not any(program.has_function(name) for name in _READERS):
        return TargetError(
            f"{who}: nothing in it reads one, so the linker turned it off",
            f"{instead}; or build it with an import of runtime/pprof, or of net/http/pprof, that it uses",
        )
    return TargetError(
        f"{who}: its runtime.MemProfileRate is 0",
        f"{instead}; or start it without what sets that: its own code, or GODEBUG",
    )


def _stopped() -> Limit:
    return Limit(
        "profile-stopped",
        "allocations since the program set runtime.MemProfileRate to 0",
        "none is sampled since, and the counts of those before are not scaled: the rate that they had is gone",
        "--source refill tells what it allocates from now on",
    )


class HeapSamples(Sequence[Sample]):
    """The samples of a heap profile, a sample for each bucket: arrays, of which samples are made when they are seen."""

    def __init__(self, stacks: CallStacks, values: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """`values`: shape (n, 4); `sizes`: the "bytes" of the label, shape (n,), -1 where there is no label."""
        self._stacks = stacks
        self._values = values
        self._sizes = sizes

    @classmethod
    def of(cls, buckets: Buckets, stacks: CallStacks, rate: int, layout: Layout) -> HeapSamples:
        """Return a sample for each bucket; their stacks are `stacks`.

        Up to Go 1.26, where buckets count bytes as well, one that has no allocation has no size either.
        """
        counted = layout.has("memRecordCycle", "alloc_bytes")
        sizes = buckets.object_size.astype(np.int64)
        columns = (*scaled(buckets.allocs, sizes, rate), *scaled(buckets.allocs - buckets.frees, sizes, rate))
        sizes[(buckets.allocs == 0) & counted] = -1
        return cls(stacks, np.stack(columns, axis=1), sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | Sequence[Sample]:
        """Return a sample, or some."""
        if isinstance(at, slice):
            return [self[row] for row in range(len(self))[at]]
        return _sample(self._stacks[at], self._values[at].tolist(), int(self._sizes[at]))

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in turn."""
        return map(_sample, self._stacks, map(np.ndarray.tolist, self._values), map(int, self._sizes))


def _sample(stack: tuple[int, ...], values: list[int], size: int) -> Sample:
    return Sample(stack, tuple(values), (("bytes", size),) if size >= 0 else ())


def scaled(count: NDArray[np.int64], size: NDArray[np.int64], rate: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the objects and bytes that sampled objects of `size` bytes stand for (scaleHeapSample).

    An object is sampled with the probability 1 - exp(-size / rate); a rate of 1 or less samples all.
    """
    if rate <= 1:
        return count, count * size
    scale = np.zeros(size.shape)
    some = size > 0
    with np.errstate(all="ignore"):  # of a rate that is a lie
        scale[some] = 1 / (1 - np.exp(-size[some].astype(np.float64) / rate))
        return _whole(count * scale), _whole(count * size * scale)


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum(np.nan_to_num(values), _LARGEST_VALUE).astype(np.int64)
