"""What an executable is to gomem: a Go program whose release, functions, struct layouts and globals are known.

Everything is tried, nothing is demanded: what a program lacks becomes a Limit, and the report shows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from tracer.binary.build_version import read_build_version
from tracer.binary.buildinfo import BuildInfo, read_build_info
from tracer.binary.executable import Executable
from tracer.binary.globals import find_globals
from tracer.binary.pclntab import FunctionTable
from tracer.errors import BinaryError, GomemError
from tracer.kernel.maps import Mappings
from tracer.layout.layout import Layout
from tracer.mapping_kinds import Program
from tracer.program_layout import choose_layout
from tracer.report import Limit, ProcessFacts
from tracer.runtime.earlier import optional_globals, required_globals
from tracer.target import ExeIdentity

_OS_PAGE = 4096
_KERNEL_ONLY = "the kernel's view is reported"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """One executable, as far as it could be understood; addresses are link-time addresses."""

    executable: Executable | None
    build: BuildInfo | None
    functions: FunctionTable | None
    layout: Layout | None
    globals: dict[str, int] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()

    @property
    def is_go(self) -> bool:
        """Tell whether this is a Go program: it has build information or a function table."""
        return self.build is not None or self.functions is not None

    @property
    def readable(self) -> bool:
        """Tell whether a live runtime of this program can be read."""
        return self.layout is not None and all(name in self.globals for name in required_globals(self.layout))

    @property
    def release(self) -> str:
        """Return the Go release as the build information spells it, or ""."""
        return self.build.go_version if self.build else ""

    def has_function(self, name: str) -> bool:
        """Tell whether the program has a function of that full name."""
        return self.functions is not None and bool(self.functions.lookup(name))

    def symbolize(self, address: int, bias: int | None) -> str | None:
        """Return the Go function at an address of a process that has loaded the program at `bias`, else None."""
        if self.functions is None or bias is None:
            return None
        function = self.functions.at(address - bias)
        return function.name if function else None

    def describe(self, facts: ProcessFacts) -> ProcessFacts:
        """Return the facts of a process with what its executable tells."""
        exe, build = self.executable, self.build
        if exe is None:
            return facts
        return replace(
            facts,
            go_version=build.go_version if build else None,
            goarch=exe.machine if self.is_go else None,
            build_id=exe.go_build_id or exe.gnu_build_id,
            main_module=(build.main_module or build.main_path or None) if build else None,
            pie=exe.pie,
            stripped=exe.stripped,
            cgo=_uses_cgo(build, self.functions),
            layout=self.layout.source if self.layout else None,
        )

    def close(self) -> None:
        """Close the executable's file."""
        if self.executable is not None:
            self.executable.close()


def _uses_cgo(build: BuildInfo | None, functions: FunctionTable | None) -> bool | None:
    """Tell whether C code was linked in: CGO_ENABLED=1 alone does not say so."""
    if functions is None:
        return None if build is None else build.settings.get("CGO_ENABLED") == "1"
    return bool(functions.lookup("_cgo_topofstack"))  # runtime/cgo/asm_amd64.s is in every program that uses cgo


def load_program(path: str) -> GoProgram:
    """Read the executable at `path`, usually /proc/PID/exe. Raises nothing but NotPermitted."""
    try:
        exe = Executable.open(path)
    except BinaryError as error:
        return GoProgram(None, None, None, None, limits=(_limit("the Go runtime", error),))
    limits: list[Limit] = []
    build = _build_info(exe, limits)
    try:
        functions = FunctionTable.find(exe)
    except BinaryError as error:
        what = "the Go runtime" if build else "Go figures"
        limits.append(_limit(what, error) if build else _not_go(exe))
        return GoProgram(exe, build, None, None, limits=tuple(limits))
    if build is None:
        version = read_build_version(exe, functions)
        build = BuildInfo(version) if version else None
    choice = choose_layout(exe, build)
    layout = choice.layout
    limits += choice.limits
    found: dict[str, int] = {}
    if layout is not None:
        required = required_globals(layout)
        wanted = (*required, *optional_globals(layout))
        described = {name: choice.addresses[name] for name in wanted if name in choice.addresses}
        found = described | find_globals(exe, functions, layout, wanted)
        missing = [name for name in required if name not in found]
        if missing:
            limits.append(
                Limit(
                    "the Go runtime's state",
                    f"its globals {', '.join(missing)} could not be found in the code",
                    _KERNEL_ONLY + "; please report the Go release and the build flags",
                )
            )
    return GoProgram(exe, build, functions, layout, found, tuple(limits))


def _build_info(exe: Executable, limits: list[Limit]) -> BuildInfo | None:
    try:
        return read_build_info(exe)
    except BinaryError as error:
        limits.append(_limit("the Go release", error))
        return None


def _not_go(exe: Executable) -> Limit:
    return Limit(
        "Go figures",
        f"{exe.path} is not a Go program: it has neither build information nor a function table",
        _KERNEL_ONLY,
    )


def _limit(what: str, error: GomemError) -> Limit:
    return Limit(what, error.what, error.fix)


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
