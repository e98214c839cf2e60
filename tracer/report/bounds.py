"""What bounds a process beside RAM, with its distance; and the calls for memory that failed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count, Rate, Seconds, Share

BoundName = Literal[
    "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_MEMLOCK", "vm.max_map_count", "CommitLimit", "RLIMIT_NPROC", "pids.max",
    "kernel.threads-max",
]  # fmt: skip


class Bound(Struct, frozen=True):
    """One limit, and what is held against it. `left` is the distance, 0 at the limit and above.

    RLIMIT_AS: VmSize. RLIMIT_DATA: VmData. RLIMIT_MEMLOCK: VmLck. vm.max_map_count: mappings. CommitLimit: Committed_AS
    of the machine, a limit only with vm.overcommit_memory 2. RLIMIT_NPROC: threads of its user, of all processes.
    pids.max: tasks in the cgroup that has least left. kernel.threads-max: threads of the machine.
    """

    name: BoundName
    unit: Literal["bytes", "count"]
    limit: Annotated[Count | None, Meta(description="null: none, or it does not hold for this process")]
    used: Annotated[
        Count | None,
        Meta(description="null: not known; of RLIMIT_NPROC also where the machine has too few threads to matter"),
    ]
    left: Count | None
    cgroup: Annotated[str | None, Meta(description="of pids.max: the path of the cgroup that sets it")] = None


class CpuBound(Struct, frozen=True):
    """How many CPUs the process may use at a time, against GOMAXPROCS, how many it tries to use.

    `quota` is the lowest of its cgroup and those above it (cpu.max; v1: cpu.cfs_quota_us over cpu.cfs_period_us).
    `throttled` of `periods` had used the quota up before their end, since the cgroup was made.
    """

    quota: Annotated[Rate | None, Meta(description="CPUs; null: none")]
    cgroup: Annotated[str | None, Meta(description="the path of the cgroup that sets it")]
    allowed: Annotated[Count | None, Meta(description="CPUs of its affinity mask, as the kernel has it")]
    gomaxprocs: Annotated[Count | None, Meta(description="null: the runtime could not be read")]
    periods: Count | None
    throttled: Count | None
    throttled_share: Annotated[Share | None, Meta(description="throttled of periods")]
    throttled_seconds: Annotated[Seconds | None, Meta(description="that its threads have waited, together")]


class FailedCalls(Struct, frozen=True):
    """Failed memory calls with the same name, errno and callers; the `last` so many seconds before the end of watching.

    `bytes` is what they asked for in all, `largest` the most that one did; None for brk, which asks for an address.
    """

    call: str
    error: Annotated[str, Meta(description="the name of the errno")]
    count: Annotated[int, Meta(ge=1)]
    bytes: Bytes | None
    largest: Bytes | None
    function: Annotated[
        str | None, Meta(description="who asked: wrappers of the runtime and packages of system calls are stepped over")
    ]
    callers: list[str]
    last: Seconds
