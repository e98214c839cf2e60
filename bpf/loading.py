"""Compiling and loading BPF programs: here, or in a child process that hands their file descriptors over and ends.

The compiler is LLVM: some 100 MB that a process never gets rid of once it has loaded it. A tracer that runs for
months lets a child do that, which takes 0.1 s longer. Programs and maps live as long as somebody has their
descriptors, so nothing is lost when the child ends, and nothing is left when we do.

Request and answer are one JSON object each, over a socket that only the two have; the descriptors come as the
ancillary data of the answer (SCM_RIGHTS).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gomem.bpf.bcc_import import Module
from gomem.bpf.probes.uprobe_program import Template
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted

COMPILING = 120.0  # seconds at the most; half a second is usual
_MOST_BYTES = 1 << 16  # of a request or an answer
_MOST_DESCRIPTORS = 64
_DETAIL = 4096  # characters of what the compiler or the verifier said last
_PR_SET_PDEATHSIG = 1
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gomem.bpf import loading; loading.serve(0)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program to load: the name of its function, and as what (enum bpf_prog_type, enum bpf_attach_type or -1).

    One that is not `required` is left out where the kernel does not take it. `template`: wanted is not the program but
    what copies for uprobes are made of (bpf/probes/uprobe_program.py), where nothing of the function was loaded before.
    """

    function: str
    program_type: int
    attach_type: int = -1
    required: bool = True
    template: bool = False

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


def load_here(source: Path, constants: Mapping[str, int], programs: Sequence[Wanted], maps: Sequence[str]) -> Loaded:
    """Compile `source` and load `programs` in this process. Raises what bcc_import.Module does."""
    module = Module(source, dict(constants))
    loaded = Loaded({}, {})
    try:
        for wanted in programs:
            try:
                _load(module, wanted, loaded)
            except BackendUnavailable as error:
                if wanted.required:
                    raise
                loaded.refused[wanted.label] = [error.what, error.fix]
        for name in maps:
            loaded.maps[name] = _copy(module.map_fd(name))
        module.forget_compiler()
    except BaseException:
        loaded.close()
        raise
    finally:
        module.close()
    return loaded


def _load(module: Module, wanted: Wanted, loaded: Loaded) -> None:
    if not wanted.template:
        loaded.programs[wanted.label] = _copy(module.load(wanted.function, wanted.program_type, wanted.attach_type))
    elif not any(label.startswith(f"{wanted.function}/") for label in loaded.programs):
        loaded.templates[wanted.function] = module.template(wanted.function)


def _copy(fd: int) -> int:
    """Return another descriptor, which does not end with its module."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)


def load_in_child(
    source: Path, constants: Mapping[str, int], programs: Sequence[Wanted], maps: Sequence[str],
    seconds: float = COMPILING,
) -> Loaded:  # fmt: skip
    """Compile `source` and load `programs`, without loading the compiler into this process.

    Raises what bcc_import.Module does: BackendUnavailable and NotPermitted; the former also if the child dies or takes
    more than `seconds`. The child has ended when this returns.
    """
    request = {
        "source": str(source),
        "constants": dict(constants),
        "programs": [asdict(wanted) for wanted in programs],
        "maps": list(maps),
        "parent": os.getpid(),
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    errors = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        child = _start(theirs, errors)
        try:
            theirs.close()
            answer, descriptors = _ask(ours, request, seconds)
        finally:
            child.kill()
            child.wait()
        return _understood(answer, descriptors, errors)
    finally:
        os.close(errors)
        theirs.close()
        ours.close()


def _start(connection: socket.socket, errors: int) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise BackendUnavailable("there is no Python interpreter that could compile the BPF programs")
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
    try:
        return subprocess.Popen(command, stdin=connection.fileno(), stdout=subprocess.DEVNULL, stderr=errors)
    except OSError as error:
        what = f"the process that compiles the BPF programs cannot be started: {error.strerror}"
        raise BackendUnavailable(what) from error


def _ask(connection: socket.socket, request: dict[str, Any], seconds: float) -> tuple[bytes, list[int]]:
    """Return the answer, empty if the child died, and the descriptors that came with it."""
    connection.settimeout(seconds)
    try:
        connection.send(json.dumps(request).encode())
        # Not socket.recv_fds, which drops the flag in Python 3.11.
        size = socket.CMSG_SPACE(_MOST_DESCRIPTORS * struct.calcsize("i"))
        answer, ancillary, _, _ = connection.recvmsg(_MOST_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        what = f"compiling the BPF programs took more than {seconds:g} s"
        raise BackendUnavailable(what, "give gomem more CPU time while it starts") from error
    except ConnectionError:
        return b"", []
    return answer, [fd for level, kind, raw in ancillary for (fd,) in struct.iter_unpack("i", raw)]


def _understood(answer: bytes, descriptors: list[int], errors: int) -> Loaded:
    """Give the descriptors their names, or raise what the child did."""
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        told = json.loads(answer)
    if "error" in told:
        kind = NotPermitted if told["error"] == NotPermitted.__name__ else BackendUnavailable
        raise kind(told["what"], told["fix"], told["detail"])
    names, labels, templates = (told.get(what, []) for what in ("maps", "programs", "templates"))
    if not told or len(names) + len(labels) + sum(len(one["maps"]) for one in templates) != len(descriptors):
        for fd in descriptors:
            os.close(fd)
        last_words = os.pread(errors, _MOST_BYTES, max(os.fstat(errors).st_size - _MOST_BYTES, 0))
        lines = last_words.decode(errors="replace").splitlines()[-5:]
        what = f"the process that compiles the BPF programs died: {lines[-1] if lines else 'without a word'}"
        fix = "give gomem enough memory for the compiler: 200 MB"
        raise BackendUnavailable(what, fix, "\n".join(lines))
    given = iter(descriptors)
    maps, programs = ({name: next(given) for name in known} for known in (names, labels))
    loaded = Loaded(maps, programs, told["refused"])
    for one in templates:
        of_template = {number: next(given) for number in one["maps"]}
        loaded.templates[one["function"]] = Template(bytes.fromhex(one["code"]), of_template)
    return loaded


def serve(descriptor: int) -> None:
    """Be the child: answer the one request that comes over the socket `descriptor`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with socket.socket(fileno=descriptor) as connection:
        request = json.loads(connection.recv(_MOST_BYTES))
        if os.getppid() != request["parent"]:
            return  # it died before it could take us along
        try:
            wanted = [Wanted(**one) for one in request["programs"]]
            loaded = load_here(Path(request["source"]), request["constants"], wanted, request["maps"])
        except GomemError as error:
            refusal = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
            refusal["detail"] = error.detail[-_DETAIL:]
            connection.send(json.dumps(refusal).encode())
            return
        answer = {
            "maps": list(loaded.maps),
            "programs": list(loaded.programs),
            "refused": loaded.refused,
            "templates": [
                {"function": function, "code": template.code.hex(), "maps": list(template.maps)}
                for function, template in loaded.templates.items()
            ],
        }
        of_templates = [fd for template in loaded.templates.values() for fd in template.maps.values()]
        descriptors = [*loaded.maps.values(), *loaded.programs.values(), *of_templates]
        socket.send_fds(connection, [json.dumps(answer).encode()], descriptors)
