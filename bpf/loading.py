"""Compiling and loading BPF programs: compiled by a child process, kept in a cache, and loaded here.

The compiler is LLVM: some 100 MB that a process never gets rid of once it has loaded it, and half a second. So a child
does that, and what comes of it is kept in ${XDG_CACHE_HOME:-~/.cache}/gomem/bpf (tracer/machine/entry_cache.py) for the
next one who needs the same: programs, compiler, constants and kernel are in the key. Loading takes 20 ms.

The child reads its request from standard input, a JSON object, and writes its answer to standard output: a Compiled, or
why there is none.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gomem.bpf import syscalls
from gomem.bpf.bcc_import import TRACING, Module, fingerprint
from gomem.bpf.compiled import Compiled, instructions, make_maps
from gomem.bpf.probes.uprobe_program import Template, load_counted, maps_of
from gomem.bpf.refusals import refused
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.machine.entry_cache import cache_directory, load_entry, store_entry

COMPILING = 120.0  # seconds at the most; half a second is usual
_DETAIL = 4096  # characters of what the compiler said last
_PR_SET_PDEATHSIG = 1
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gomem.bpf import loading; loading.serve()"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program to load: the name of its function, and as what (enum bpf_prog_type, enum bpf_attach_type or -1).

    One that is not `required` is left out where the kernel does not take it. `template`: wanted is not the program but
    what copies for uprobes are made of (bpf/probes/uprobe_program.py), where nothing of the function was loaded before.
    One for functions of the kernel (TRACING) is a template too: for which function, is said when it is loaded. `later`:
    so is this, since it may not be needed.
    """

    function: str
    program_type: int
    attach_type: int = -1
    required: bool = True
    template: bool = False
    later: bool = False

    @property
    def label(self) -> str:
        """Return what it is called among the loaded ones."""
        return f"{self.function}/{'template' if self.template else self.attach_type}"


@dataclass(slots=True)
class Loaded:
    """The descriptors of maps, by name, of programs, by label, and templates, by function. Whoever has this closes it.

    `refused`: why the kernel did not take programs that need not be there, and what to do about it, by label.
    """

    maps: dict[str, int]
    programs: dict[str, int]
    refused: dict[str, list[str]] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)

    def program(self, wanted: Wanted) -> int | None:
        """Return the descriptor of a program, None if the kernel did not take it."""
        return self.programs.get(wanted.label)

    def need(self, wanted: Wanted) -> int:
        """Return the descriptor of a program. Raises BackendUnavailable if it was not loaded."""
        if wanted.label not in self.programs:
            unknown = [f"the BPF program {wanted.function} was not loaded"]
            raise BackendUnavailable(*self.refused.get(wanted.label, unknown))
        return self.programs[wanted.label]

    def need_template(self, wanted: Wanted) -> Template:
        """Return a template, which is closed by whoever has it from now on. Raises BackendUnavailable."""
        if wanted.function not in self.templates:
            unknown = [f"no copies of the BPF program {wanted.function} can be made"]
            raise BackendUnavailable(*self.refused.get(wanted.label, unknown))
        return self.templates.pop(wanted.function)

    def close(self) -> None:
        """Close all. Idempotent."""
        for descriptors in (self.maps, self.programs):
            while descriptors:
                os.close(descriptors.popitem()[1])
        while self.templates:
            self.templates.popitem()[1].close()


def load(
    source: Path, constants: Mapping[str, int], programs: Sequence[Wanted], *, anew: bool = False,
    seconds: float = COMPILING,
) -> Loaded:  # fmt: skip
    """Load `programs` of a source and all of its maps. With `anew` it is compiled, whether or not that was done before.

    Raises BackendUnavailable and NotPermitted; the former also if the child dies or takes more than `seconds`.
    """
    return load_compiled(_compiled(source, constants, programs, anew=anew, seconds=seconds), programs)


def load_compiled(program: Compiled, programs: Sequence[Wanted]) -> Loaded:
    """Make the maps and load `programs`. Raises BackendUnavailable and NotPermitted."""
    loaded = Loaded(make_maps(program), {})
    try:
        for wanted in programs:
            try:
                _load(program, wanted, loaded)
            except BackendUnavailable as error:
                if wanted.required:
                    raise
                loaded.refused[wanted.label] = [error.what, error.fix]
    except BaseException:
        loaded.close()
        raise
    return loaded


def _load(program: Compiled, wanted: Wanted, loaded: Loaded) -> None:
    code = instructions(program, wanted.function, loaded.maps)
    if wanted.program_type == TRACING or wanted.later:
        loaded.templates[wanted.function] = Template(code, {fd: os.dup(fd) for fd in maps_of(code)})
    elif not wanted.template:
        loaded.programs[wanted.label] = _accepted(wanted, code)
    elif not any(label.startswith(f"{wanted.function}/") for label in loaded.programs):
        template = Template(code, {fd: os.dup(fd) for fd in maps_of(code)})
        try:
            os.close(_accepted(wanted, template.with_cookie(0)))
        except BaseException:
            template.close()
            raise
        loaded.templates[wanted.function] = template


def _accepted(wanted: Wanted, code: bytes) -> int:
    """Return the descriptor of a program that the kernel has taken."""
    attach_type = max(wanted.attach_type, 0)
    try:
        return load_counted(code, wanted.program_type, attach_type, wanted.function)
    except OSError as error:
        said = f"{error.strerror}\n{syscalls.verifier_log(wanted.program_type, code, attach_type)}"
        refused(f"the kernel refuses the BPF program {wanted.function}", said, error)


def _compiled(
    source: Path, constants: Mapping[str, int], programs: Sequence[Wanted], *, anew: bool, seconds: float
) -> Compiled:
    directory, key, functions = cache_directory("bpf"), "", sorted({wanted.function for wanted in programs})
    with suppress(OSError):  # the compiler will say what is the matter with the source
        key = fingerprint(source, constants)
    if directory is not None and key and not anew:
        with suppress(msgspec.DecodeError):
            found = msgspec.json.decode(load_entry(directory, key) or b"", type=Compiled)
            if found.functions.keys() >= set(functions):
                return found
    answer = _ask({"source": str(source), "constants": dict(constants), "functions": functions}, seconds)
    program = msgspec.json.decode(answer, type=Compiled)
    if directory is not None and key:
        store_entry(directory, key, answer)
    return program


def _ask(request: dict[str, Any], seconds: float) -> bytes:
    """Return the answer of a child, which has ended then, or raise what it did."""
    if not sys.executable:
        raise BackendUnavailable("there is no Python interpreter that could compile the BPF programs")
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path)]
    asked = json.dumps(request | {"parent": os.getpid()}).encode()
    try:
        with _start(command) as child:
            try:
                answer, said = child.communicate(asked, seconds)
            except BaseException:
                child.kill()
                raise
    except subprocess.TimeoutExpired as error:
        what = f"compiling the BPF programs took more than {seconds:g} s"
        raise BackendUnavailable(what, "give gomem more CPU time while it starts") from error
    except OSError as error:
        what = f"the process that compiles the BPF programs cannot be started: {error.strerror}"
        raise BackendUnavailable(what) from error
    if child.returncode == 0:
        return answer
    told: dict[str, Any] = {}
    with suppress(ValueError):
        told = json.loads(answer)
    if "error" in told:
        kind = NotPermitted if told["error"] == NotPermitted.__name__ else BackendUnavailable
        raise kind(told["what"], told["fix"], told["detail"])
    lines = said.decode(errors="replace").splitlines()[-5:]
    what = f"the process that compiles the BPF programs died: {lines[-1] if lines else 'without a word'}"
    raise BackendUnavailable(what, "give gomem enough memory for the compiler: 200 MB", "\n".join(lines))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the child with SIGINT blocked, for good: Ctrl-C is for us, and we end the child if we end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve() -> None:
    """Be the child: answer the one request of standard input."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    request = json.load(sys.stdin.buffer)
    if os.getppid() != request["parent"]:
        return  # it died before it could take us along
    try:
        module = Module(Path(request["source"]), request["constants"])
        answer = msgspec.json.encode(module.compiled(request["functions"]))
        module.close()
    except GomemError as error:
        refusal = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
        answer = json.dumps(refusal | {"detail": error.detail[-_DETAIL:]}).encode()
        sys.stdout.buffer.write(answer)
        raise SystemExit(1) from None
    sys.stdout.buffer.write(answer)
