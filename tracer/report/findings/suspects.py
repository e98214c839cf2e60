"""What can be the cause of a process's memory: suspects as data, each with the figures that decide.

A suspect is the cause when a finding says so; the findings' own thresholds stand here as what it takes. One that no
finding names is ruled out by the first figure that is too small, and never by one that was not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from gomem.tracer.report import Report
from gomem.tracer.report.findings import (
    address_space,
    bounds,
    files,
    gomemlimit,
    growth,
    holders,
    limits,
    memory,
    native,
)
from gomem.tracer.report.findings import suspect_figures as figure
from gomem.tracer.report.findings.base import LARGE, MIB, NOTEWORTHY
from gomem.tracer.report.findings.suspect_figures import Value

Unit = Literal["bytes", "count", "share"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure that decides: what is less than `it_takes` rules the suspect out, or what is less than `doubt`.

    Growth has a doubt: a little of it in a short time is a slow leak, or none.
    """

    what: str
    unit: Unit
    it_takes: float
    value: Callable[[Report], Value]
    doubt: float | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A possible cause. It takes all of `measures`; `tell` is what one can do where a figure is missing."""

    name: str
    what: str
    findings: tuple[str, ...]
    measures: tuple[Measure, ...]
    tell: str


_WATCH = "watch longer: -d 2m"
_RUNTIME = "the Go runtime has to be readable; the limits below say what is missing"
_KERNEL = "needs the right to read the process; the limits below say what is missing"


def _of_rss(what: str, part: Callable[[Report], Value], share: float, least: int = LARGE) -> tuple[Measure, ...]:
    """Return the two measures of most parts of RSS: bytes that are worth a word, and a share of RSS."""
    return (
        Measure(f"{what} in RAM", "bytes", least, part),
        Measure(f"{what} as a share of RSS", "share", share, figure.share_of_rss(part)),
    )


SUSPECTS: Final = (
    Suspect(
        "leak",
        "a leak, or a cache without a bound: what is alive grows",
        ("live-heap-grows",),
        (Measure("growth of the live heap while it was watched", "bytes", NOTEWORTHY, figure.live_growth, MIB),),
        "it takes six collections while it is watched (-d 2m)",
    ),
    Suspect(
        "goroutine-leak",
        "a leak of goroutines",
        ("goroutines-grow",),
        (
            Measure(
                "more goroutines while it was watched", "count", growth.GOROUTINES, figure.grown("goroutines"), 10,
            ),
        ),
        _WATCH,
    ),
    Suspect(
        "outside-leak",
        "a leak outside of Go: C's heap, mmap",
        ("outside-grows", "finalizers-wait-for-gc"),
        (Measure("growth of memory outside of Go while it was watched", "bytes", NOTEWORTHY,
                 figure.grown("outside"), MIB),),
        _WATCH,
    ),
    Suspect(
        "memory-limit",
        "GOMEMLIMIT: the collector works for a limit that it cannot keep",
        ("near-gomemlimit", "gomemlimit-ahead"),
        (Measure("what Go uses of GOMEMLIMIT", "share", gomemlimit.LIMIT_NEAR, figure.limit_share),),
        _RUNTIME,
    ),
    Suspect(
        "cgroup-limit",
        "the limit of the cgroup",
        ("near-cgroup-limit", "over-memory-high", "oom-kills", "gomemlimit-above-cgroup",
         "gomemlimit-without-headroom", "gomemlimit-unset"),
        (Measure("what the cgroup uses of its limit", "share", limits.CGROUP_NEAR, figure.cgroup_share),),
        "this machine's cgroup of the process cannot be read",
    ),
    Suspect(
        "cgroup-cache",
        "what the cgroup is charged beside its processes: page cache, tmpfs, the kernel's own",
        ("working-set-page-cache", "cgroup-tmpfs", "cgroup-kernel-memory"),
        (Measure("what the cgroup is charged that is in no process's RSS", "bytes", LARGE, figure.in_no_process),),
        "this machine's cgroup of the process cannot be read",
    ),
    Suspect(
        "pace",
        "GOGC: the heap may grow far above what is alive",
        ("goal-far-above-live", "collector-off"),
        (Measure("what the heap may grow to above what is alive", "bytes", LARGE, figure.goal_above_live),
         Measure("the heap's goal as a multiple of what is alive", "count", limits.GOAL_FACTOR,
                 lambda report: report.heap.goal / report.heap.live
                 if report.heap is not None and report.heap.goal and report.heap.live else None)),
        _RUNTIME,
    ),
    Suspect(
        "fragmentation",
        "fragmentation: holes between objects",
        ("fragmentation",),
        (Measure("holes between objects", "bytes", NOTEWORTHY, figure.holes),
         Measure("holes as a share of the heap in use", "share", memory.WASTE_SHARE, figure.holes_share)),
        _RUNTIME,
    ),
    Suspect(
        "large-objects",
        "few large objects",
        ("large-objects",),
        (Measure("objects of 16 MiB and more", "bytes", LARGE, figure.large_objects),
         Measure("them as a share of the heap in use", "share", holders.LARGE_OBJECTS_SHARE,
                 figure.large_objects_share)),
        _RUNTIME,
    ),
    Suspect(
        "free-runs",
        "free heap in runs that are too short",
        ("fragmented-free-heap",),
        (Measure("free pages of the heap", "bytes", LARGE, figure.free_runs),
         Measure("what of them is not in the longest run", "share", 1 - holders.FRAGMENTED,
                 figure.beside_the_longest_run)),
        _RUNTIME,
    ),
    Suspect(
        "huge-page-zeros",
        "zeros that huge pages bring along",
        ("barely-used-huge-pages",),
        (Measure("zeros in huge pages in use", "bytes", LARGE, figure.zeros),),
        _RUNTIME,
    ),
    Suspect(
        "retained",
        "free heap that Go keeps",
        ("retained-idle-heap",),
        _of_rss("free heap", figure.page("free"), memory.RETAINED_SHARE),
        _RUNTIME,
    ),
    Suspect(
        "lazily-freed",
        "memory that was given back with MADV_FREE and is still counted",
        ("lazily-freed",),
        _of_rss("lazily freed memory", figure.resident("lazy_free"), memory.LAZY_SHARE, NOTEWORTHY),
        _KERNEL,
    ),
    Suspect(
        "released-but-kept",
        "memory that Go gave back and the kernel keeps",
        ("scavenged-but-resident",),
        (Measure("released heap that is in RAM all the same", "bytes", NOTEWORTHY, figure.released),),
        _RUNTIME,
    ),
    Suspect(
        "huge-pages",
        "transparent huge pages",
        ("huge-pages",),
        (Measure("free heap that huge pages can hold in RAM", "bytes", LARGE, figure.idle_in_huge_pages),
         Measure("huge pages as a share of RSS", "share", memory.HUGE_PAGE_SHARE,
                 figure.share_of_rss(figure.resident("huge_pages")))),
        _KERNEL,
    ),
    Suspect(
        "goroutine-stacks",
        "goroutine stacks",
        ("goroutine-stacks",),
        _of_rss("goroutine stacks", figure.page("stacks"), memory.STACK_SHARE),
        _RUNTIME,
    ),
    Suspect(
        "ended-goroutines",
        "goroutines that have ended",
        ("ended-goroutines",),
        (Measure("g structs of goroutines that have ended", "bytes", NOTEWORTHY, figure.ended),),
        _RUNTIME,
    ),
    Suspect(
        "timers",
        "timers that have not fired",
        ("many-timers",),
        (Measure("timers that wait to fire", "bytes", NOTEWORTHY, figure.timers),
         Measure("them as a share of the heap in use", "share", holders.TIMERS_SHARE, figure.timers_share)),
        _RUNTIME,
    ),
    Suspect(
        "finalizers",
        "finalizers and cleanups that are not run as fast as they come",
        ("waiting-finalizers",),
        (Measure("finalizers and cleanups of dead objects that wait", "count", holders.QUEUED, figure.queued),),
        _RUNTIME,
    ),
    Suspect(
        "profile-buckets",
        "the runtime's own profiles",
        ("profile-buckets",),
        (Measure("records of profiles (BuckHashSys)", "bytes", NOTEWORTHY, figure.memstat("BuckHashSys")),
         Measure("them as a share of all that Go has from the system", "share", holders.BUCKETS_SHARE,
                 figure.buckets_share)),
        _RUNTIME,
    ),
    Suspect(
        "metadata",
        "the runtime's own records",
        ("runtime-metadata",),
        _of_rss("the runtime's own records", figure.metadata, memory.METADATA_SHARE),
        _RUNTIME,
    ),
    Suspect(
        "outside",
        "C's heap, or mappings of the program's own",
        ("outside-the-go-heap", "user-mappings"),
        _of_rss("memory outside of Go", figure.kinds("c_heap", "other"), native.OUTSIDE_SHARE),
        _RUNTIME,
    ),
    Suspect(
        "c-heap-free",
        "C memory that is free and kept by malloc",
        ("c-heap-free",),
        (Measure("C's heap in RAM", "bytes", LARGE, figure.c_heap),
         *_of_rss("free C memory", figure.free_of_c, native.STACK_SHARE),
         Measure("it as a share of C's heap", "share", native.FREE_SHARE, figure.free_share_of_c)),
        "needs glibc's malloc, and the right to read the process; the limits below say what is missing",
    ),
    Suspect(
        "thread-stacks",
        "stacks of OS threads",
        ("thread-stacks",),
        _of_rss("stacks of threads", figure.thread_stacks, native.STACK_SHARE),
        _KERNEL,
    ),
    Suspect(
        "files",
        "pages of files",
        ("file-pages", "dirty-file-pages", "locked-file-pages", "copied-file-pages"),
        _of_rss("pages of files", figure.file_pages, files.SHARE),
        _KERNEL,
    ),
    Suspect(
        "shared-memory",
        "shared memory",
        ("shared-memory",),
        _of_rss("shared memory", figure.resident("shmem"), files.SHARE),
        _KERNEL,
    ),
    Suspect(
        "swap",
        "swap",
        ("swapped",),
        (Measure("what is swapped out", "bytes", NOTEWORTHY, figure.resident("swap")),),
        _KERNEL,
    ),
    Suspect(
        "address-space",
        "a limit on address space",
        ("near-address-space-limit", "near-data-limit", "near-commit-limit"),
        (Measure("what is used of a limit on address space", "share", address_space.LIMIT_NEAR, figure.address_share),),
        _KERNEL,
    ),
    Suspect(
        "mappings",
        "the limit of mappings",
        ("near-mapping-limit",),
        (Measure("mappings as a share of vm.max_map_count", "share", bounds.NEAR,
                 figure.bound_share(bounds.MAPPINGS)),),
        _KERNEL,
    ),
    Suspect(
        "threads",
        "a limit of threads",
        ("near-thread-limit",),
        (Measure("what is used of a limit of threads", "share", bounds.NEAR, figure.bound_share(*bounds.THREADS)),),
        _KERNEL,
    ),
    Suspect(
        "locked-memory",
        "the limit of locked memory",
        ("near-memlock-limit",),
        (Measure("locked memory as a share of RLIMIT_MEMLOCK", "share", bounds.NEAR,
                 figure.bound_share(bounds.LOCKED)),),
        _KERNEL,
    ),
)  # fmt: skip

# What is said of gomem's own reading is no cause of anything.
OF_GOMEM: Final = frozenset({"lost-events", "drift", "inexact-snapshot", "unexplained-ready", "looks-like-go"})
