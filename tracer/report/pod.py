"""The contract of `gomem pod --format json`: the whole bill of a memory cgroup (schema gomem.pod/1).

All sizes are bytes, all durations seconds. None means "could not be had" (`limits` says why), never 0.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.cgroup_bill import CgroupBill, FileIo, MemoryPressure
from gomem.tracer.report.figures import Bytes, Count
from gomem.tracer.report.finding import Finding
from gomem.tracer.report.limit import Limit

SCHEMA = "gomem.pod/1"


class PodProcess(Struct, frozen=True):
    """One process of the cgroup or of those in it. `rss` counts pages that it shares with others in each of them."""

    pid: Count
    name: str
    go: Annotated[bool | None, Meta(description="whether it is a Go program; null: its executable cannot be read")]
    cgroup: Annotated[str, Meta(description="its memory cgroup, as seen from that of the bill: empty for that itself")]
    rss: Bytes
    anonymous: Bytes | None
    file: Bytes | None
    shmem: Bytes | None
    swap: Bytes | None
    page_tables: Bytes | None
    io: Annotated[FileIo | None, Meta(description="null: it may not be read")]


class ProcessSums(Struct, frozen=True):
    """Sums over all processes, also those that are not listed; `io` is of those whose figures may be read."""

    processes: Count
    go: Count
    rss: Bytes
    go_rss: Bytes
    anonymous: Bytes
    swap: Bytes
    io: FileIo | None


class BpfMaps(Struct, frozen=True):
    """The BPF maps that its processes hold open, each once: `bytes` as the kernel gives them (memlock in fdinfo).

    They are part of `kernel` of the cgroup that made them, from Linux 5.11 on.
    """

    maps: Count
    bytes: Bytes


class PodReport(Struct, frozen=True, tag_field="schema", tag=SCHEMA):
    """The bill of one memory cgroup: what it is charged, for what, its processes, and what is nobody's."""

    taken_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    path: Annotated[str, Meta(description="of the cgroup, as our cgroup namespace shows it")]
    pod: Annotated[str | None, Meta(description="the uid of the Kubernetes pod that the path names")]
    container_id: str | None
    bill: CgroupBill
    above: Annotated[list[CgroupBill], Meta(description="its ancestors that have a limit, the nearest first")]
    below: Annotated[list[CgroupBill], Meta(description="those right in it, as a pod's containers, the largest first")]
    processes: Annotated[list[PodProcess], Meta(description="the largest RSS first, at most 1,000")]
    sums: ProcessSums
    bpf_maps: BpfMaps | None
    machine_pressure: Annotated[MemoryPressure | None, Meta(description="/proc/pressure/memory")]
    findings: list[Finding]
    limits: list[Limit]
