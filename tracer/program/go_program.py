"""What an executable is to gomem: a Go program whose release, functions, struct layouts and globals are known.

Everything is tried, nothing is demanded: what a program lacks becomes a Limit, and the report shows the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, addresses, normalise, union
from gomem.tracer.binary.build_version import read_build_version
from gomem.tracer.binary.buildinfo import BuildInfo, read_build_info
from gomem.tracer.binary.elf32 import ThirtyTwoBit
from gomem.tracer.binary.encodings import Encoding, encoding_of
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.int80 import has_int_0x80
from gomem.tracer.binary.other_go import other_compiler
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.errors import BinaryError, GomemError
from gomem.tracer.kernel.mapping_kinds import Program
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.target import ExeIdentity
from gomem.tracer.program.globals import find_globals
from gomem.tracer.program.layout_choice import choose_layout
from gomem.tracer.report import Limit, ProcessFacts
from gomem.tracer.runtime.earlier import optional_globals, required_globals

_OS_PAGE = 4096
_RELEASE = re.compile(r"(?:go|devel)")
_KERNELS = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]")
KERNEL_ONLY = "only the kernel's view is reported"  # of limits behind which there is no more
# The kinds of limits that say why there is no more than the kernel's view.
WITHOUT_GO = frozenset(("not-go", "other-go-compiler", "go-executable", "go-build-info", "go-functions", "go-state"))


class ModuleFile(Struct, frozen=True):
    """A file with a Go runtime that a process has mapped beside its executable; device and inode as its maps have them.

    `path` is its name in the process's mount namespace.
    """

    path: str
    device: int
    inode: int

    @property
    def identity(self) -> ExeIdentity:
        """The file, as what tells where an executable is mapped wants it."""
        return ExeIdentity(self.device, self.inode, 0, 0)


@dataclass(frozen=True, slots=True)
class GoProgram:
    """One executable, or one Go library, as far as it could be understood; addresses are link-time addresses.

    `others` are the same with other layouts: where it takes the live process to tell which one it is. Of a library,
    `module` says which file of the process it is, and `host` is the process's executable. `beside` are other Go
    runtimes of the same process.
    """

    executable: Executable | None
    build: BuildInfo | None
    functions: FunctionTable | None
    layout: Layout | None
    globals: dict[str, int] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    others: tuple[GoProgram, ...] = ()
    foreign_goarch: str = ""  # of an executable for another machine, which is not read
    module: ModuleFile | None = None
    host: Executable | None = None
    beside: tuple[GoProgram, ...] = ()
    # Globals that only some ask for, by name; None: not found.
    _further: dict[str, int | None] = field(default_factory=dict, repr=False, compare=False)
    _encoding: list[Encoding] = field(default_factory=list, repr=False, compare=False)  # once it was asked for

    @property
    def is_go(self) -> bool:
        """Tell whether this is a Go program: it has build information or a function table."""
        return self.build is not None or self.functions is not None

    @property
    def is_in_memory(self) -> bool:
        """Tell whether no file holds it: its executable has unpacked it into memory."""
        return self.executable is not None and self.executable.in_memory

    @property
    def readable(self) -> bool:
        """Tell whether a live runtime of this program can be read."""
        return self.layout is not None and all(name in self.globals for name in required_globals(self.layout))

    @property
    def release(self) -> str:
        """Return the Go release as the build information spells it, or as its structs let guess it, or ""."""
        said = self.build.go_version if self.build else ""
        guessed = self.layout is not None and self.layout.source == "nearest" and not _RELEASE.match(said)
        return f"{self.layout.go_version} (guessed)" if self.layout is not None and guessed else said

    def proven(self) -> GoProgram:
        """Return the program with the layout that has proven itself on some process of it; as it is if none has."""
        known = (one for one in (self, *self.others) if one.layout is not None and one.layout.confirmed)
        return self.placed_as(next(known, self))

    def placed_as(self, other: GoProgram) -> GoProgram:
        """Return the same file read by another layout, `other`, where this one is in the process."""
        if other is self:
            return self
        return replace(other, module=self.module, host=self.host, beside=self.beside)

    def find(self, names: Iterable[str]) -> dict[str, int]:
        """Return the addresses of these globals, as far as they can be found.

        By a layout that is confirmed the code is searched once for each.
        """
        assert self.executable is not None
        assert self.functions is not None
        assert self.layout is not None
        wanted = list(names)
        further = self._further if self.layout.confirmed else {}
        new = [name for name in wanted if name not in self.globals and name not in further]
        if new:
            further.update(dict.fromkeys(new) | find_globals(self.executable, self.functions, self.layout, new))
        known = {name: self.globals.get(name, further.get(name)) for name in wanted}
        return {name: address for name, address in known.items() if address is not None}

    def symbolizer(self) -> Symbolizer:
        """Return what tells the functions at addresses, inlined ones too. Raises BinaryError where the file is damaged.

        How the program writes them down is found once.
        """
        assert self.executable is not None
        assert self.functions is not None
        if not self._encoding:
            self._encoding.append(encoding_of(self.executable, self.functions))
        return Symbolizer(self.executable, self.functions, self._encoding[0])

    def has_function(self, name: str) -> bool:
        """Tell whether the program has a function of that full name."""
        return self.functions is not None and bool(self.functions.lookup(name))

    def symbolize(self, address: int, bias: int | None) -> str | None:
        """Return the Go function at an address of a process that has loaded the program at `bias`, else None."""
        if self.functions is None or bias is None:
            return None
        function = self.functions.at(address - bias)
        return function.name if function else None

    def may_make_compat_calls(self) -> bool:
        """Tell whether its own code makes 32-bit system calls, as far as can be told. Reads all of it."""
        files = (exe for exe in (self.host, self.executable) if exe is not None)
        return bool(self.foreign_goarch) or any(has_int_0x80(exe) for exe in files)

    def describe(self, facts: ProcessFacts) -> ProcessFacts:
        """Return the facts of a process with what its executable tells."""
        exe, build = self.executable, self.build
        if exe is None:
            return structs.replace(facts, go_version=build.go_version, goarch=self.foreign_goarch) if build else facts
        return structs.replace(
            facts,
            go_version=self.release or None,
            goarch=exe.machine if self.is_go else None,
            build_id=exe.go_build_id or exe.gnu_build_id,
            main_module=(build.main_module or build.main_path or None) if build else None,
            pie=exe.pie,
            stripped=exe.stripped,
            cgo=_uses_cgo(build, self.functions),
            layout=self.layout.source if self.layout else None,
            module=self.module.path if self.module else None,
        )

    def close(self) -> None:
        """Close the executable's file, and those of all that is beside it."""
        for exe in (self.executable, self.host):
            if exe is not None:
                exe.close()
        for program in self.beside:
            program.close()


def _uses_cgo(build: BuildInfo | None, functions: FunctionTable | None) -> bool | None:
    """Tell whether C code was linked in: CGO_ENABLED=1 alone does not say so."""
    if functions is None:
        return None if build is None else build.settings.get("CGO_ENABLED") == "1"
    return bool(functions.lookup("_cgo_topofstack"))  # runtime/cgo/asm_amd64.s is in every program that uses cgo


def load_program(path: str) -> GoProgram:
    """Read the executable at `path`, usually /proc/PID/exe. Raises nothing but NotPermitted and NoAnswer."""
    program = _load(path)
    if program.executable is not None and program.executable.no_answer is not None:
        program.close()
        raise program.executable.no_answer
    return program


def _load(path: str) -> GoProgram:
    try:
        exe = Executable.open(path)
    except ThirtyTwoBit as error:
        build = BuildInfo(error.go_version) if error.go_version else None
        limit = _limit("go-executable", "the Go runtime", error)
        return GoProgram(None, build, None, None, limits=(limit,), foreign_goarch=error.goarch)
    except BinaryError as error:
        return GoProgram(None, None, None, None, limits=(_limit("go-executable", "the Go runtime", error),))
    return understand(exe)


def understand(exe: Executable) -> GoProgram:
    """Return what an open file is; it is the result's from now on, which closes it."""
    build, limits = _build_info(exe)
    try:
        functions = FunctionTable.find(exe)
    except BinaryError as error:
        limit = _of_another(exe) or (_limit("go-functions", "the Go runtime", error) if build else _not_go(exe))
        return GoProgram(exe, build, None, None, limits=(*limits, limit))
    if build is None:
        version = read_build_version(exe, functions)
        build = BuildInfo(version) if version else None
    choice = choose_layout(exe, build, functions.version)
    limits = (*limits, *choice.limits)
    if choice.layout is None:
        return GoProgram(exe, build, functions, None, limits=limits)
    programs = [
        GoProgram(exe, build, functions, one, _globals(exe, functions, one, choice.addresses), limits)
        for one in (choice.layout, *choice.others)
    ]
    first, *others = [one for one in programs if one.readable] or [_unreadable(programs[0])]
    return replace(first, others=tuple(others))


def _globals(exe: Executable, functions: FunctionTable, layout: Layout, described: Mapping[str, int]) -> dict[str, int]:
    """Return the runtime's globals, as far as DWARF (`described`) or the code tells where they are."""
    wanted = (*required_globals(layout), *optional_globals(layout))
    known = {name: described[name] for name in wanted if name in described}
    return known | find_globals(exe, functions, layout, wanted)


def _unreadable(program: GoProgram) -> GoProgram:
    assert program.layout is not None
    missing = [name for name in required_globals(program.layout) if name not in program.globals]
    limit = Limit(
        "go-state",
        "the Go runtime's state",
        f"its globals {', '.join(missing)} could not be found in the code; {KERNEL_ONLY}",
        "please report the Go release and the build flags (go version -m FILE)",
    )
    return replace(program, limits=(*program.limits, limit))


def _build_info(exe: Executable) -> tuple[BuildInfo | None, tuple[Limit, ...]]:
    try:
        return read_build_info(exe), ()
    except BinaryError as error:
        return None, (_limit("go-build-info", "the Go release", error),)


def _of_another(exe: Executable) -> Limit | None:
    compiler = other_compiler(exe)
    if compiler is None:
        return None
    return Limit(
        "other-go-compiler",
        "the Go runtime",
        f"{exe.path} was compiled by {compiler}, whose runtime is another than that of Go's own toolchain, and not "
        f"known to gomem; {KERNEL_ONLY}",
        "build it with Go's own compiler (go build) to see its heap",
    )


def _not_go(exe: Executable) -> Limit:
    return Limit(
        "not-go",
        "Go figures",
        f"{exe.path} is not a Go program: it has neither build information nor a function table; {KERNEL_ONLY}",
        "gomem ps lists the Go processes, if it is one of them that is meant",
    )


def _limit(kind: str, what: str, error: GomemError) -> Limit:
    return Limit(kind, what, error.what, error.fix)


def load_bias(exe: Executable, identity: ExeIdentity, mappings: Mappings) -> int | None:
    """Return how far the process has the program from its link-time addresses; None if it maps it nowhere."""
    if not exe.pie:
        return 0
    mine = (mappings.inode == np.uint64(identity.inode)) & (mappings.offset == np.uint64(0))
    starts = mappings.start[mine]
    first = next((segment for segment in exe.segments if segment.offset < _OS_PAGE), None)
    if not len(starts) or first is None:
        return None
    return int(starts[0]) - first.address // _OS_PAGE * _OS_PAGE


def anonymous(mappings: Mappings) -> Ranges:
    """Return where the process has private memory that belongs to no file."""
    found = (mappings.inode == 0) & (mappings.device == 0) & ~mappings.shared
    return normalise(mappings.start[found], mappings.end[found])


def unpacked_files(mappings: Mappings) -> NDArray[np.bool_]:
    """Tell which mappings are memory that no file of a file system backs: anonymous, or of memfd_create(2)."""
    memory = np.array([name.startswith("/memfd:") for name in mappings.name], np.bool_)
    kernels = np.array([name in _KERNELS for name in mappings.name], np.bool_)
    nobodys = (mappings.inode == 0) & (mappings.device == 0) & ~mappings.shared & ~kernels
    unpacked: NDArray[np.bool_] = nobodys | memory
    return unpacked


def safe_to_read(identity: ExeIdentity, start_code: int, mappings: Mappings) -> Ranges:
    """Return where a read of the process's memory waits for no file system but that of its executable.

    Private anonymous memory, where the runtime keeps all that it allocates, and the executable's own segments. An
    inode's number alone does not make a file the executable. Where an overlay file system shows another device in
    maps than stat does, that of the program's code counts (`start_code` of /proc/PID/stat).
    """
    named = (mappings.inode == np.uint64(identity.inode)) & ~mappings.shared
    own = named & (mappings.device == np.uint64(identity.device))
    if not own.any():
        code = int(mappings.find(addresses([start_code]))[0])
        if code >= 0 and named[code]:
            own = named & (mappings.device == mappings.device[code])
    return union(anonymous(mappings), normalise(mappings.start[own], mappings.end[own]))


def mapped_from(files: Collection[tuple[int, int]], mappings: Mappings) -> Ranges:
    """Return where the process has mapped these files (device, inode), and does not share them."""
    own = np.zeros(len(mappings), np.bool_)
    for device, inode in files:
        own |= (mappings.inode == np.uint64(inode)) & (mappings.device == np.uint64(device)) & ~mappings.shared
    return normalise(mappings.start[own], mappings.end[own])


def writable_pages_of(identity: ExeIdentity, mappings: Mappings) -> Ranges:
    """Return where the process has mapped the file that it executes, and may have pages of its own in its place."""
    own = (mappings.inode == np.uint64(identity.inode)) & ~mappings.shared & mappings.writable
    return normalise(mappings.start[own], mappings.end[own])


def placed(exe: Executable, identity: ExeIdentity, mappings: Mappings, bias: int) -> Program:
    """Return where the program's file and segments lie in the process."""
    segments = tuple(
        (
            (segment.address + bias) // _OS_PAGE * _OS_PAGE,
            -(-(segment.address + segment.memory_size + bias) // _OS_PAGE) * _OS_PAGE,
        )
        for segment in exe.segments
    )
    own = mappings.inode == np.uint64(identity.inode)
    # Overlay file systems show another device in maps than stat does: take it from the mapping itself.
    device = int(mappings.device[own][0]) if own.any() else identity.device
    return Program(device, identity.inode, segments)
