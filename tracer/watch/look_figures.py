"""The figures of a look whose course is worth knowing."""

from __future__ import annotations

import numpy as np

from gomem.tracer.report import KINDS
from gomem.tracer.runtime.finalizers import specials
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.pressure import limit_use

_OUTSIDE = [KINDS.index(kind) for kind in ("c_heap", "other")]
_THREAD_STACK = KINDS.index("thread_stack")
_PARTS = ("live", "garbage", "holes", "stacks", "retained", "metadata", "profile_buckets")


def figures_of(look: Snapshot) -> dict[str, int | None]:
    """Return bytes and counts by name.

    `rss`, `file` and `shmem` are the kernel's; `outside`: in RAM, of C's heap and of mappings that are not the
    runtime's. `go` and its parts are what GOMEMLIMIT is held against (LimitUse); `not_garbage`: what no collection
    frees. `finalizers`: objects that have one, or a cleanup.
    """
    space, resident = look.space, look.kernel.resident()
    figures: dict[str, int | None] = {
        "rss": resident.total,
        "file": resident.file,
        "shmem": resident.shmem,
        "thread_stacks": int(space.resident[space.kind == _THREAD_STACK].sum()),
        "threads": look.kernel.status.threads,
    }
    runtime = look.runtime
    if runtime is None:
        return figures
    figures["outside"] = int(space.resident[np.isin(space.kind, _OUTSIDE)].sum())
    use = limit_use(runtime.memstats, runtime.collector.live, None)
    if use is not None:
        figures["not_garbage"] = use.live + use.stacks + use.metadata + use.profile_buckets
        figures |= {"go": use.total, **{name: int(getattr(use, name)) for name in _PARTS}}
    scheduler = runtime.structure.scheduler
    figures["goroutines"] = scheduler.goroutines if scheduler is not None else None
    forced = runtime.memstats["NumForcedGC"]
    figures["forced_collections"] = forced if isinstance(forced, int) else None
    collections = runtime.memstats["NumGC"]
    figures["collections"] = collections if isinstance(collections, int) else None
    allocators = runtime.structure.fixed_allocs
    kept = specials(allocators) if allocators is not None else {}
    figures["finalizers"] = kept["finalizers"] + kept.get("cleanups", 0) if "finalizers" in kept else None
    return figures
