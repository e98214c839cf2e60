"""The Go runtimes of a process: of its executable, and of libraries that it has loaded (-buildmode=c-shared).

A C program, an interpreter or a server may have loaded a library that brings a Go runtime of its own. Then what is read
and probed is that library's file, at the addresses that the process has mapped it at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import go_mark, shares_packages
from gomem.tracer.errors import BinaryError, GomemError, NotPermitted, TargetError
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.proc.beneath import NotAsked
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram, ModuleFile, load_program, understand
from gomem.tracer.program.mapped_files import open_executable
from gomem.tracer.report import Limit

_DELETED = " (deleted)"
_MOST_FILES = 256  # that are looked into
_MOST_RUNTIMES = 8


def load_target(target: Target, module: str = "") -> GoProgram:
    """Return the Go program that a process runs, in its executable or in a library; with what else is Go's in it.

    `module`: the path, or the name, of the file whose runtime is meant; without it the executable's, else that of the
    first library in order of address. Raises NotPermitted, NoAnswer, TargetGone, and TargetError where that file has
    no Go runtime.
    """
    with ExitStack() as stack:
        host = load_program(target.exe_file)
        stack.callback(host.close)
        libraries, limits = load_libraries(target, host)
        for library in libraries:
            stack.callback(library.close)
        program = _chosen(target, host, libraries, module)
        stack.pop_all()
    return program if program.is_go else replace(program, limits=(*program.limits, *limits))


def load_libraries(target: Target, host: GoProgram) -> tuple[list[GoProgram], list[Limit]]:
    """Return the Go libraries that the process has mapped beside its executable, and what was not looked into."""
    found: list[GoProgram] = []
    limits: list[Limit] = []
    if host.executable is not None and host.executable.interpreter is None and not host.executable.pie:
        return found, limits  # static: it loads nothing
    mappings = read_mappings(target, attempts=1).mappings
    for exe, file in _go_files(target, mappings, limits):
        found.append(replace(understand(exe), module=file, host=host.executable))
        if len(found) == _MOST_RUNTIMES:
            break
    return found, limits


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
