"""The memory cgroups that bound the processes: each container or cgroup once, without a pid, however many are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.exporters.prometheus.identity import text
from gomem.exporters.prometheus.metric import Metric, MetricType, Sample, Value, of_view
from gomem.tracer.fleet.view import CgroupView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory

CgroupMetric = Metric[CgroupView]

LABELS = ("cgroup", "namespace", "workload", "pod", "container", "node")
# Of what memory.stat tells, these are told also while they are 0.
_ALWAYS = ("anon", "active_file", "inactive_file")


def label_values(cgroup: CgroupView) -> tuple[str, ...]:
    """Return the values of LABELS, "" for what is not known."""
    of = cgroup.workload
    return tuple(text(value) for value in (cgroup.path, of.namespace, of.owner, of.pod, of.container, of.node))


def _figure(name: str, help: str, read: Callable[[CgroupMemory], Value | None]) -> CgroupMetric:
    return of_view(name, help, lambda cgroup: None if cgroup.memory is None else read(cgroup.memory))


def _kinds(cgroup: CgroupView) -> Iterator[Sample]:
    for kind, size in cgroup.memory.kinds.items() if cgroup.memory else ():
        if size or kind in _ALWAYS:
            yield (kind,), size


def _events(cgroup: CgroupView) -> Iterator[Sample]:
    memory = cgroup.memory
    if memory is None:
        return
    for event, count in memory.events.items():
        # What cannot happen for want of a limit is not told.
        if count or (memory.high if event == "high" else memory.max) is not None:
            yield (event,), count


def _waited(cgroup: CgroupView) -> Iterator[Sample]:
    pressure = cgroup.memory.pressure if cgroup.memory else None
    if pressure is not None:
        yield ("some",), pressure.some.total
        yield ("full",), pressure.full.total


METRICS: tuple[CgroupMetric, ...] = (
    _figure(
        "gomem_cgroup_memory_bytes",
        "Memory charged to the container or cgroup (memory.current), of all its processes and with page cache.",
        lambda memory: memory.current,
    ),
    _figure(
        "gomem_cgroup_memory_working_set_bytes",
        "What the kubelet reckons: memory.current without inactive file pages.",
        lambda memory: memory.working_set,
    ),
    _figure(
        "gomem_cgroup_memory_unreclaimable_bytes",
        "Memory that the kernel can put nowhere but into swap: memory.current without file pages and reclaimable "
        "slabs; when this nears the limit, the OOM killer is near.",
        lambda memory: memory.unreclaimable,
    ),
    _figure(
        "gomem_cgroup_memory_max_bytes",
        "The hard limit at which the kernel kills: the smallest memory.max of the cgroup and those above it; absent "
        "when there is none.",
        lambda memory: memory.max,
    ),
    _figure(
        "gomem_cgroup_memory_high_bytes",
        "The cgroup's memory.high, above which the kernel slows its processes down; absent when there is none.",
        lambda memory: memory.high,
    ),
    Metric(
        "gomem_cgroup_memory_stat_bytes",
        MetricType.GAUGE,
        "bytes",
        "Parts of memory.current by memory.stat's names, shmem and what the kernel itself uses left out while 0; file "
        "pages are taken back before anybody is killed.",
        ("kind",),
        _kinds,
    ),
    Metric(
        "gomem_cgroup_memory_events_total",
        MetricType.COUNTER,
        "",
        "Times that usage passed memory.high (high), met memory.max (max), and could not be brought below it (oom); "
        "a high rate of max means that processes wait for the kernel to free pages.",
        ("event",),
        _events,
    ),
    Metric(
        "gomem_cgroup_memory_pressure_seconds_total",
        MetricType.COUNTER,
        "seconds",
        "Time in which at least one task of the cgroup waited for memory (some), and in which all did (full), by "
        "memory.pressure of cgroup v2; at a rate of 0.1 of full the limit costs a tenth of the work.",
        ("tasks",),
        _waited,
    ),
    of_view(
        "gomem_cgroup_oom_kills_total",
        "Processes of the container or cgroup that the kernel killed for want of memory; any increase is an outage. "
        "It goes on over a restart, is there for 15 minutes after the cgroup's end, and without a container but with a "
        "pod it counts kills in the pod that no followed container was seen to have.",
        lambda cgroup: cgroup.oom_kills,
    ),
)
