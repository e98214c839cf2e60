"""The Go runtimes of a process: of its executable, and of libraries that it has loaded (-buildmode=c-shared).

A C program, an interpreter or a server may have loaded a library that brings a Go runtime of its own. Then what is read
and probed is that library's file, at the addresses that the process has mapped it at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from gomem.tracer.addresses.ranges import union
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import go_mark, shares_packages
from gomem.tracer.errors import BinaryError, GomemError, LayoutError, NotPermitted, SnapshotError, TargetError
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.proc.beneath import NotAsked
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import (
    GoProgram,
    ModuleFile,
    anonymous,
    load_bias,
    load_program,
    mapped_from,
    understand,
)
from gomem.tracer.program.mapped_files import open_executable
from gomem.tracer.program.memory_image import search_memory
from gomem.tracer.report import Limit
from gomem.tracer.runtime.counters import read_counters

_DELETED = " (deleted)"
_MOST_FILES = 256  # that are looked into
_MOST_RUNTIMES = 8


def load_target(target: Target, module: str = "") -> GoProgram:
    """Return the Go program that a process runs, in its executable or in a library; with what else is Go's in it.

    `module`: the path, or the name, of the file whose runtime is meant; without it the executable's, else that of the
    library with the largest heap. Raises NotPermitted, NoAnswer, TargetGone, and TargetError where that file has
    no Go runtime.
    """
    with ExitStack() as stack:
        host = load_program(target.exe_file)
        stack.callback(host.close)
        libraries, limits = load_libraries(target, host)
        for library in libraries:
            stack.callback(library.close)
        if len(libraries) > 1 and not host.is_go and not module:
            in_use = {id(library): _heap_in_use(target, library) for library in libraries}
            libraries.sort(key=lambda library: -in_use[id(library)])
        program = _chosen(target, host, libraries, module)
        stack.pop_all()
    return program if program.is_go else _in_memory(target, replace(program, limits=(*program.limits, *limits)))


def _in_memory(target: Target, host: GoProgram) -> GoProgram:
    """Return the Go program that an executable has unpacked into memory, else what is known of the executable."""
    if host.executable is None:
        return host
    search = search_memory(target, host.executable.machine)
    limit = search.limit()
    if search.found is None:
        return host if limit is None else replace(host, limits=(*host.limits, limit))
    program = understand(search.found)
    if not program.is_go:
        program.close()
        return host
    assert limit is not None
    return replace(program, host=host.executable, limits=(*program.limits, limit))


def load_libraries(target: Target, host: GoProgram) -> tuple[list[GoProgram], list[Limit]]:
    """Return the Go libraries that the process has mapped beside its executable, and what was not looked into."""
    found: list[GoProgram] = []
    limits: list[Limit] = []
    if loads_libraries(host):
        mappings = read_mappings(target, attempts=1).mappings
        for exe, file in _go_files(target, mappings, limits):
            found.append(replace(understand(exe), module=file, host=host.executable))
            if len(found) == _MOST_RUNTIMES:
                break
    return found, limits


def loads_libraries(host: GoProgram) -> bool:
    """Tell whether an executable can have libraries: no static one has."""
    return host.executable is None or host.executable.interpreter is not None or host.executable.pie


def library_files(target: Target) -> tuple[tuple[int, int, int], ...]:
    """Return the device, inode and mtime (ns) of each file with a Go runtime of its own, beside the executable.

    Raises TargetGone, NotPermitted.
    """
    found = []
    for exe, file in _go_files(target, read_mappings(target, attempts=1).mappings, []):
        with exe:
            found.append((file.device, file.inode, exe.status.st_mtime_ns))
        if len(found) == _MOST_RUNTIMES:
            break
    return tuple(found)


def _chosen(target: Target, host: GoProgram, libraries: list[GoProgram], module: str) -> GoProgram:
    everything = [*([host] if host.is_go else []), *libraries]
    if not module:
        chosen = everything[0] if everything else host
    else:
        fitting = [one for one in everything if _is_called(one, target, module)]
        if not fitting:
            known = ", ".join(one.module.path if one.module else target.exe for one in everything) or "none"
            raise TargetError(
                f"process {target.pid} ({target.exe}) has no Go runtime in a file {module}",
                f"the files with a Go runtime that it has mapped: {known}",
            )
        chosen = fitting[0]
    others = tuple(one for one in everything if one is not chosen)
    return replace(chosen, beside=others)


def _heap_in_use(target: Target, program: GoProgram) -> int:
    """Return the HeapInuse of a library's runtime now, 0 where it cannot be read."""
    exe, layout, file = program.executable, program.layout, program.module
    if exe is None or layout is None or file is None or not program.readable:
        return 0
    mappings = read_mappings(target, attempts=1).mappings
    bias = load_bias(exe, file.identity, mappings)
    if bias is None:
        return 0
    addresses = {name: address + bias for name, address in program.globals.items()}
    safe = union(anonymous(mappings), mapped_from([(file.device, file.inode)], mappings))
    try:
        with ProcessMemory(target.pid, lambda: safe) as memory:
            in_use = read_counters(memory, layout, addresses, 1).memstats.get("HeapInuse")
    except (SnapshotError, LayoutError, NotPermitted):
        return 0
    return in_use if isinstance(in_use, int) else 0


def _is_called(program: GoProgram, target: Target, module: str) -> bool:
    path = program.module.path if program.module else target.exe
    return module in (path, path.rpartition("/")[2])


def _go_files(target: Target, mappings: Mappings, limits: list[Limit]) -> Iterator[tuple[Executable, ModuleFile]]:
    """Yield each mapped file that holds a Go runtime of its own, opened, in order of address."""
    known = {target.exe_identity.inode}
    for row in np.flatnonzero(mappings.executable & (mappings.inode != 0)).tolist():
        inode, name = int(mappings.inode[row]), mappings.name[row].removesuffix(_DELETED)
        if inode in known or len(known) > _MOST_FILES:
            continue
        known.add(inode)
        try:
            exe = open_executable(target.pid, mappings, row)
        except NotAsked as error:
            limits.append(Limit("library-not-asked", f"Go in {name}, if there is any", error.strerror or "", ""))
            continue
        except (OSError, BinaryError, NotPermitted):
            continue
        if _has_runtime(exe):
            yield exe, ModuleFile(name, int(mappings.device[row]), inode)
        else:
            exe.close()


def _has_runtime(exe: Executable) -> bool:
    try:
        return go_mark(exe) is not None and not shares_packages(exe)
    except GomemError:
        return False
