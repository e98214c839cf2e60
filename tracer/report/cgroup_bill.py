"""What a memory cgroup is charged, and for what: the part of the report that every cgroup of a bill has."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count, Seconds

Percent = Annotated[float, Meta(ge=0)]


class Stalled(Struct, frozen=True):
    """For how long processes waited for memory: shares of the last 10, 60 and 300 seconds in percent, and all in all.

    Source: Documentation/accounting/psi.rst.
    """

    avg10: Percent
    avg60: Percent
    avg300: Percent
    total: Seconds


class MemoryPressure(Struct, frozen=True):
    """Pressure stall information: `some`, when at least one task waited, `full`, when all did that had work to do."""

    some: Stalled
    full: Stalled


class CgroupBill(Struct, frozen=True):
    """What one memory cgroup is charged, its descendants included; bytes. v1's figures have v2's names.

    `limit` is the lowest memory.max among it and its ancestors, as far as they can be seen.
    `parts` are the figures of memory.stat that this kernel has; some are parts of others (`file_mapped` of `file`,
    `slab_reclaimable` of `kernel`), and not all are in `memory_current` (`swap`, `zswapped`; in v1 `sock`).
    `events` are those of memory.events: how often usage passed `high`, met `max`, and could not be brought below it
    (`oom`), and how many processes were killed for that (`oom_kill`).
    """

    path: str
    version: Literal[1, 2]
    memory_current: Bytes
    memory_peak: Bytes | None
    memory_max: Annotated[Bytes | None, Meta(description="null: no limit of its own")]
    memory_high: Bytes | None
    swap_max: Annotated[Bytes | None, Meta(description="null: no limit of its own; v1 limits the sum of both")]
    limit: Bytes | None
    limited_by: Annotated[str | None, Meta(description="the path of the cgroup that sets limit")]
    working_set: Annotated[
        Bytes | None,
        Meta(description="as the kubelet has it: memory_current - inactive_file, at least 0; v1: total_inactive_file"),
    ]
    reclaimable: Annotated[
        Bytes | None,
        Meta(
            description="file pages (active_file, inactive_file, with what is lazily freed) and reclaimable slabs: the "
            "kernel takes them back before it kills, file_dirty after it has been written"
        ),
    ]
    unmapped: Annotated[
        Bytes | None,
        Meta(
            description="what is in no process's RSS: memory_current - anon - file_mapped. Page cache, tmpfs, the "
            "kernel's own memory, sockets"
        ),
    ]
    parts: dict[str, Bytes]
    events: dict[str, Count]
    pressure: Annotated[MemoryPressure | None, Meta(description="null: v1, or a kernel without it")] = None


class FileIo(Struct, frozen=True):
    """What processes have moved between page cache and disks since their start, their ended children included; bytes.

    `written` are pages made dirty, whether they have been written out yet or not, less those that were thrown away
    before. tmpfs is in neither. Source: /proc/PID/io (proc_pid_io(5)).
    """

    read: Bytes
    written: Bytes
