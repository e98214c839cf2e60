"""The seam to bcc: where it is imported, compiled with and let go of. No `Any` passes beyond it.

bcc is a distribution's package (python3-bpfcc), absent from PyPI. A virtual environment that does
not see the system's packages gets just the package `bcc` from its directory: it is pure Python over
ctypes, so another Python's copy works.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from gomem.bpf import syscalls
from gomem.bpf.compiled import Compiled, compiled
from gomem.bpf.probes.uprobe_program import Template, load_counted, maps_of
from gomem.bpf.refusals import refused
from gomem.tracer.errors import BackendUnavailable

# bcc optimises what clang gives it (bpf_module.cc: run_pass_manager), and inlines then. That clang does the same before
# takes a fifth of the time to compile, and the programs are no better for it.
_OPTIMISED_BY_BCC_ONLY = ["-Xclang", "-disable-llvm-passes"]

_DIRECTORIES = (
    "/usr/lib/python3/dist-packages",
    "/usr/lib/python3.*/site-packages",
    "/usr/local/lib/python3*/*-packages",
)
INCLUDE_TREE = Path(__file__).parent / "include"
INSTALL_BCC = "install it: apt-get install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora)"

# libbcc keeps modules in tables of its own without a lock: two threads that let go of one each crash.
_one_at_a_time = threading.RLock()

KPROBE = syscalls.BPF_PROG_TYPE_KPROBE
TRACEPOINT = 5
RAW_TRACEPOINT = 17
TRACING = syscalls.BPF_PROG_TYPE_TRACING


def import_bcc() -> Any:
    """Import the package bcc, from wherever the system keeps it. Raises BackendUnavailable."""
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    try:
        spec = _package()
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bcc"] = module
        spec.loader.exec_module(module)
    except (ImportError, OSError, AttributeError) as error:
        for name in [name for name in sys.modules if name == "bcc" or name.startswith("bcc.")]:
            del sys.modules[name]
        raise BackendUnavailable(f"bcc cannot be loaded: {error}", INSTALL_BCC) from error
    return module


def _package() -> ModuleSpec:
    """Return where bcc is. Raises BackendUnavailable if it is nowhere."""
    spec = importlib.util.find_spec("bcc") or _find_outside()
    if spec is None or spec.loader is None:
        raise BackendUnavailable("bcc, which compiles the BPF programs, is not installed", INSTALL_BCC)
    return spec


def _find_outside() -> ModuleSpec | None:
    root = Path("/")
    for pattern in _DIRECTORIES:
        for directory in sorted(root.glob(pattern.lstrip("/"))):
            package = directory / "bcc"
            if (package / "__init__.py").is_file():
                return importlib.util.spec_from_file_location(
                    "bcc", package / "__init__.py", submodule_search_locations=[str(package)]
                )
    return None


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what clang and libbpf write to file descriptor 2."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.memfd_create("stderr"), "w+b") as capture:  # no file system need be writable
        os.dup2(capture.fileno(), 2)

        def text() -> str:
            capture.seek(0)
            return capture.read(65536).decode(errors="replace")

        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def _kernel_source(directory: Path) -> Iterator[None]:
    before = os.environ.get("BCC_KERNEL_SOURCE")
    os.environ["BCC_KERNEL_SOURCE"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["BCC_KERNEL_SOURCE"]
        else:
            os.environ["BCC_KERNEL_SOURCE"] = before


def fingerprint(source: Path, constants: Mapping[str, int]) -> str:
    """Return a SHA-256 of what the instructions depend on. Raises BackendUnavailable without bcc, and OSError."""
    kernel, package = os.uname(), _package()
    compiler = os.stat(package.origin or "")
    flags = [f"{name}={value}" for name, value in sorted(constants.items())] + _OPTIMISED_BY_BCC_ONLY
    where = [kernel.machine, kernel.release, kernel.version, package.origin, compiler.st_mtime_ns, compiler.st_size]
    digest = hashlib.sha256(repr([flags, where]).encode())
    for content in (_whole(source), *(path.read_bytes() for path in sorted(INCLUDE_TREE.rglob("*.h")))):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _whole(source: Path) -> bytes:
    """Return a source with the files beside it that it includes: bcc knows map operations in the main file only."""

    def included(line: re.Match[str]) -> str:
        return (source.parent / line[1]).read_text()

    return re.sub(r'^#include "([\w.]+)"$', included, source.read_text(), flags=re.MULTILINE).encode()


class Module:
    """A compiled BPF source file: its maps exist, its programs can be loaded.

    Raises BackendUnavailable if it does not compile, with clang's words.
    """

    def __init__(self, source: Path, constants: dict[str, int]) -> None:
        bcc = import_bcc()
        flags = [*(f"-D{name}={value}" for name, value in constants.items()), *_OPTIMISED_BY_BCC_ONLY]
        self._bpf: Any = None
        with _one_at_a_time, _kernel_source(INCLUDE_TREE), _captured_stderr() as said:
            try:
                self._bpf = bcc.BPF(text=_whole(source), cflags=flags)
            except Exception as error:  # bcc raises bare Exception
                refused(f"{source.name} does not compile or its maps are refused", said(), error)
        self._library: Any = bcc.lib
        self._programs: dict[tuple[str, int], int] = {}

    def load(self, name: str, program_type: int, attach_type: int = -1) -> int:
        """Load a program into the kernel, once per attach type; return its fd, which lives as long as this module."""
        if (name, attach_type) in self._programs:
            return self._programs[name, attach_type]
        with _one_at_a_time, _captured_stderr() as said:
            try:
                fd: int = self._bpf.load_func(name.encode(), program_type, None, attach_type).fd
            except Exception as error:
                refused(f"the kernel refuses the BPF program {name}", said(), error)
        del self._bpf.funcs[name.encode()]  # bcc would return this one for any other attach type
        self._programs[name, attach_type] = fd
        return fd

    def template(self, name: str) -> Template:
        """Return what copies of a program for uprobes are made of, when the kernel has taken one of them.

        Raises as `load` does.
        """
        code: bytes = self._bpf.dump_func(name.encode())
        template = Template(code, {fd: os.dup(fd) for fd in maps_of(code)})
        copy = template.with_cookie(0)
        try:
            os.close(load_counted(copy))
        except OSError as error:
            template.close()
            said = f"{error.strerror}\n{syscalls.verifier_log(KPROBE, copy)}"
            refused(f"the kernel refuses the BPF program {name}", said, Exception(error.strerror))
        return template

    def compiled(self, functions: Iterable[str]) -> Compiled:
        """Return the maps and these functions, for whoever loads them without the compiler."""
        module = ctypes.c_void_p(self._bpf.module)
        self._library.bpf_table_name.restype = ctypes.c_char_p
        tables = range(self._library.bpf_num_tables(module))
        names = [self._library.bpf_table_name(module, ctypes.c_size_t(table)).decode() for table in tables]
        maps = {name: self.map_fd(name) for name in names}
        return compiled(maps, {name: bytes(self._bpf.dump_func(name.encode())) for name in functions})

    def map_fd(self, name: str) -> int:
        """Return the fd of a map, which lives as long as this module. Raises BackendUnavailable if it has none."""
        fd: int = self._library.bpf_table_fd(self._bpf.module, name.encode())
        if fd < 0:
            raise BackendUnavailable(f"bcc does not find the BPF map {name}")
        return fd

    def forget_compiler(self) -> None:
        """Give back clang's memory; nothing can be loaded afterwards."""
        with _one_at_a_time:
            self._bpf.free_bcc_memory()
        syscalls.return_free_memory()

    def close(self) -> None:
        """Close every map and program. Idempotent."""
        if self._bpf is not None:
            for fd in self._programs.values():
                os.close(fd)
            with _one_at_a_time:
                self._bpf.cleanup()
            self._bpf = None
