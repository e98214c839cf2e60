"""The Go processes of the machine in a line each: release, RSS, heap and limits, from a few reads of each.

Nothing is attached, no process is stopped, and no heap is walked: the runtime's counters are read alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from gomem.tracer.discovery.census import take_census
from gomem.tracer.discovery.process_info import ProcessInfo
from gomem.tracer.errors import GomemError, TargetError
from gomem.tracer.kernel.cgroup import read_memory_cgroup
from gomem.tracer.process.target import ExeIdentity, Target
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.program.modules import load_target, loads_libraries
from gomem.tracer.report import Limit
from gomem.tracer.runtime.contiguous import has_contiguous_arena, limit_of_figures
from gomem.tracer.runtime.earlier import first_number
from gomem.tracer.runtime.stats import memory_limit
from gomem.tracer.snapshot.inspection import Inspector

SCHEMA = "gomem.processes/1"

_Programs = dict[tuple[int, int, int], GoProgram]


@dataclass(frozen=True, slots=True)
class GoProcess:
    """One Go process; bytes. None: it could not be had (`limits` say why), or there is no such limit."""

    pid: int
    name: str
    exe: str
    cmdline: list[str]
    uid: int | None
    go_version: str | None = None
    rss: int | None = None  # VmRSS: may be off by some pages per CPU
    heap_in_use: int | None = None  # HeapInuse
    heap_live: int | None = None  # what the last GC cycle marked
    memory_limit: int | None = None  # GOMEMLIMIT
    cgroup: str | None = None  # the path of its memory cgroup
    cgroup_max: int | None = None  # the lowest limit among that and its ancestors
    limits: list[Limit] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listing:
    """All that could be seen, the largest RSS first; `limits`: which processes could not be told to be Go or not."""

    processes: list[GoProcess]
    limits: list[Limit]


def list_processes() -> Listing:
    """Return the Go processes of the machine; those that end meanwhile are left out. Raises TargetError."""
    census = take_census()
    programs: _Programs = {}
    with ExitStack() as stack:
        rows = list(_rows(census.go, programs, stack))
    rows.sort(key=lambda row: (-(row.rss or 0), row.pid))
    return Listing(rows, census.limits())


def _rows(infos: Iterable[ProcessInfo], programs: _Programs, stack: ExitStack) -> Iterable[GoProcess]:
    for info in infos:
        row = GoProcess(info.pid, info.name, info.exe, [], info.uid)
        try:
            with Target.open(info.pid, info.identity.start_ticks) as target:
                yield _described(row, target, programs, stack)
        except TargetError:
            continue
        except GomemError as error:
            yield replace(row, limits=[Limit("process-unreadable", "everything but its name", error.what, error.fix)])


def _described(row: GoProcess, target: Target, programs: _Programs, stack: ExitStack) -> GoProcess:
    program = _program(target, programs, stack)
    group = read_memory_cgroup(target)
    row = replace(
        row,
        cmdline=target.cmdline,
        go_version=program.release or None,
        rss=target.status().vm_rss,
        cgroup=group.charged or group.cgroup.path if group else None,
        cgroup_max=group.effective_max if group else None,
    )
    with Inspector(target, program, owns_program=False) as inspector:
        try:
            return _with_heap(row, inspector)
        except TargetError:
            raise
        except GomemError as error:
            return replace(row, limits=[Limit("heap-unreadable", "its heap", error.what, error.fix)])


def _with_heap(row: GoProcess, inspector: Inspector) -> GoProcess:
    program = inspector.program
    if program.layout is not None and has_contiguous_arena(program.layout):
        raise limit_of_figures(program.release)
    if not program.readable:
        unknown = Limit("heap-unreadable", "its heap", "its runtime is not recognised", "")
        return replace(row, limits=list(program.limits) or [unknown])
    counters = inspector.reader().counters()
    in_use = counters.memstats["HeapInuse"]
    assert isinstance(in_use, int)
    return replace(
        row,
        heap_in_use=in_use,
        heap_live=first_number(counters.controller, "heapMarked", "heap_marked"),
        memory_limit=memory_limit(counters.controller),
    )


def _program(target: Target, programs: _Programs, stack: ExitStack) -> GoProgram:
    """Return what `target` executes, read once for all processes that execute the same file."""
    identity: ExeIdentity = target.exe_identity
    key = (identity.device, identity.inode, identity.mtime_ns)
    if key not in programs:
        program = load_program(target.exe_file)
        stack.callback(program.close)
        target.check_same_program()
        programs[key] = program
    if programs[key].is_go or not loads_libraries(programs[key]):
        return programs[key]
    in_library = load_target(target)
    stack.callback(in_library.close)
    return in_library
