"""Who holds the resident memory of a process: a sample for each holder, whose values sum to RSS to the byte.

A stack leads from the holder up to the whole. Its outer locations are no code but names ("Go heap", "spans in use");
objects of the Go heap have the call that allocated them within these.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from gomem.tracer.profile.beside import Beside, NothingBeside
from gomem.tracer.profile.goroutine_stacks import of_stacks
from gomem.tracer.profile.holders import Holder, merged, of_heap, of_runtime
from gomem.tracer.profile.in_use import of_spans
from gomem.tracer.profile.mapped import Mapped, of_the_rest
from gomem.tracer.profile.slots import PagesIn, slots_of
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Line, Location, Profile, Sample, ValueType
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.page_kinds import page_kinds

SAMPLE_TYPES = (ValueType("resident", "bytes"), ValueType("virtual", "bytes"))
_BASES = (
    "label basis=pages: counted by OS page, as the kernel counts RSS",
    "label basis=slots: pages in use, split by the runtime's own counts of slots; where a span is partly in RAM, in "
    "proportion",
    "label basis=samples: estimated by the runtime's heap profile, never more than is counted in slots of that size",
)
_NO_PAGE = ("unknown", "counted by the kernel, in no page that was found")


def resident_profile(inspector: Inspector, *, freeze: bool = False) -> Profile:
    """Return who holds the resident memory of a process now; `freeze` stops it while it is read.

    Of a process without a Go runtime that can be read only what the kernel knows is told apart. Raises as
    Inspector.look and Inspector.look_frozen.
    """
    beside = Beside(inspector)
    look = inspector.look_frozen(beside=beside.read) if freeze else inspector.look(beside.read)
    now = time.time_ns()
    found, code = holders(look, beside), beside.locations
    names = _Names(code.all() if code is not None else ())
    samples = tuple(names.sample(one) for one in found)
    return Profile(
        sample_types=SAMPLE_TYPES,
        samples=samples,
        locations=tuple(names.locations),
        mappings=code.mappings() if code is not None else (),
        default_type="resident",
        time_ns=now,
        comments=(*_heading(inspector, look), *_BASES),
        limits=(*look.limits, *beside.limits, *_missed(look)),
    )


def holders(look: Snapshot, beside: Beside | NothingBeside) -> list[Holder]:
    """Return who holds the memory of a look. All of it sums to its RSS, and to its address space."""
    kernel, runtime, space = look.kernel, look.runtime, look.space
    devices = kernel.shmem_devices
    anonymous, _ = page_kinds(space, kernel.mappings, kernel.residency, devices, kernel.status.rss_shmem)
    found = [*of_heap(space)]
    found += of_the_rest(space, Mapped(kernel.mappings, anonymous, devices, kernel.file_pages, beside.smaps))
    found += of_stacks(PagesIn(space, kernel.residency, PageState.STACK), beside.goroutines, beside.stacks)
    if runtime is not None:
        found += of_runtime(space, runtime.regions)
        found += of_spans(slots_of(runtime.spans, space, kernel.residency), runtime, beside.calls())
    return merged([*found, Holder(_NO_PAGE, 0, max(_beyond(look), 0))])


def _beyond(look: Snapshot) -> int:
    """Return by how much the kernel's own sum is above that of all pages, of a process that stood still."""
    rollup = look.kernel.rollup
    if look.frozen_seconds is None or rollup is None or rollup.rss is None:
        return 0
    return rollup.rss - look.kernel.residency.rss_bytes


def _missed(look: Snapshot) -> Iterator[Limit]:
    beyond = -_beyond(look)
    if beyond > 0:
        why = f"the pages that were found in RAM are {beyond} bytes more than the kernel's sum of them"
        yield Limit("resident-sum", "who holds each byte of the kernel's Rss", why, "")


def _heading(inspector: Inspector, look: Snapshot) -> Iterator[str]:
    target, kernel, frozen = inspector.target, look.kernel, look.frozen_seconds
    how = "read as it ran" if frozen is None else f"stopped for {frozen * 1000:.1f} ms while it was read"
    yield f"resident memory of process {target.pid} ({target.exe}) by holder, {how}, by gomem"
    rss = kernel.rollup.rss if kernel.rollup is not None else None
    told = f", smaps_rollup's Rss {rss}" if rss is not None else ""
    yield f"RSS by OS page: {kernel.residency.rss_bytes} bytes{told}"


class _Names:
    """Locations of a profile: those of code, and a further one for each name of a holder."""

    def __init__(self, code: Sequence[Location]) -> None:
        self.locations = list(code)
        self._index: dict[str, int] = {}

    def sample(self, holder: Holder) -> Sample:
        """Return the sample of a holder."""
        path = tuple(self._of(name) for name in reversed(holder.path))
        return Sample(holder.stack + path, (holder.resident, holder.virtual), (("basis", holder.basis),))

    def _of(self, name: str) -> int:
        known = self._index.get(name)
        if known is None:
            known = self._index[name] = len(self.locations)
            self.locations.append(Location(0, (Line(name),)))
        return known
