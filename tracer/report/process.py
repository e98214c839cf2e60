"""Who the target is, and how it ended."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from gomem.tracer.report.figures import Bytes, Count, Seconds


class Cgroup(Struct, frozen=True):
    """The target's memory cgroup (v2 names; v1 figures are put under them)."""

    path: str
    memory_current: Bytes | None
    memory_max: Annotated[Bytes | None, Meta(description="null: no limit")]
    memory_high: Bytes | None
    oom_kill: Count | None


class ProcessFacts(Struct, frozen=True):
    """Who the target is."""

    pid: Annotated[Count, Meta(description="0: of a log that does not name it")]
    ns_pid: Count
    start_time: Annotated[str, Meta(description="RFC 3339")]
    exe: str
    cmdline: list[str]
    go_version: str | None = None
    goarch: str | None = None
    build_id: str | None = None
    main_module: str | None = None
    pie: bool | None = None
    stripped: bool | None = None
    cgo: bool | None = None
    layout: Literal["table", "dwarf", "nearest"] | None = None
    cgroup: Cgroup | None = None
    container_id: str | None = None
    pod: str | None = None
    module: Annotated[
        str | None, Meta(description="the file that holds the Go runtime, where that is not the executable")
    ] = None


class GoRuntime(Struct, frozen=True):
    """One of several Go runtimes in a process: of its executable, or of a library (-buildmode=c-shared).

    `module` is the file that it is in; the report is of the one that is `reported`. The figures are its MemStats, and
    how much of its memory is in RAM; null where it could not be read: `why_not` says why.
    """

    module: str
    go_version: str | None
    reported: bool
    heap_in_use: Bytes | None
    heap_sys: Bytes | None
    heap_released: Bytes | None
    stack_in_use: Bytes | None
    sys: Bytes | None
    resident: Bytes | None
    why_not: str | None = None


class OomKill(Struct, frozen=True):
    """That the OOM killer ended the process. `by`: what had run out, a memory cgroup at its limit, or the machine.

    `cgroup` is the path of that cgroup, `limit` its limit in bytes. `proven`: the kernel's log names this very process;
    else the cgroup that it was in has counted `kills` kills meanwhile, and which processes they were is not known.
    """

    by: Literal["cgroup", "machine"] | None
    cgroup: str | None
    limit: Bytes | None
    proven: bool
    kills: Annotated[int, Meta(ge=1)] | None = None


class FailedCall(Struct, frozen=True):
    """A system call by which the process asked for memory in vain; `seconds` before the end of the watching.

    `error` is the name of the errno, `bytes` what was asked for, `function` who asked, as far as a stack was had.
    """

    seconds: Seconds
    call: str
    error: str
    bytes: Bytes | None
    function: str | None
    callers: list[str]


class ProcessEnding(Struct, frozen=True):
    """How the process ended: by itself with `exit_code`, or by `signal` (its name). Both are None if nobody tells.

    `peak_rss` (bytes) and `cpu_seconds` are known of commands that gomem started. `failed_calls`: the last ones.
    """

    exit_code: Annotated[int, Meta(ge=0, le=255)] | None
    signal: str | None
    core_dumped: bool | None
    oom: OomKill | None = None
    peak_rss: Bytes | None = None
    cpu_seconds: Seconds | None = None
    failed_calls: list[FailedCall] = field(default_factory=list)
