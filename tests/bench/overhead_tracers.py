"""The tracers that are compared: how each is started, when it is attached, and how it is ended."""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from tests.bench.overhead_targets import Workload
from tests.support.command import executable

_ATTACHED_BY = 45.0  # seconds
_ENDED_BY = 60.0
_LASTING = 2.5  # seconds; bpf/probes/call_tracepoints.py changes over before
_BREAKPOINT = b"\xcc"

_One = TypeVar("_One")


@dataclass(frozen=True, slots=True)
class Tracer:
    """A column of the table: its name, the command for a target, and whether it is attached by now."""

    name: str
    command: Callable[[Workload, float], list[str]]  # the float: seconds that it has to run at least
    attached: Callable[[Workload, str], bool]  # gets what the tracer has said so far
    interrupted: bool = True  # ends by Ctrl-C, not by itself
    settles: float = 0.0  # seconds from attached on, until it costs what it costs for as long as it watches

    def by(self, program: str) -> Tracer:
        """Return the same with another executable."""
        return replace(self, command=lambda workload, seconds: [program, *self.command(workload, seconds)[1:]])


def _gomem(*words: str) -> Callable[[Workload, float], list[str]]:
    def command(workload: Workload, seconds: float) -> list[str]:
        return [executable(), "trace", "--pid", str(workload.pid), "--duration", f"{seconds:g}",
                "--backend", "bpf", "--format", "json", *words]  # fmt: skip

    return command


def _serve(workload: Workload, seconds: float) -> list[str]:
    del seconds
    return [executable(), "serve", "--pid", str(workload.pid), "--listen", "127.0.0.1:0", "--interval", "5"]


def _strace(workload: Workload, seconds: float) -> list[str]:
    del seconds
    return ["strace", "-f", "-e", "trace=memory", "-o", "/dev/null", "-p", str(workload.pid)]


def _bpftrace(workload: Workload, seconds: float) -> list[str]:
    del seconds
    return ["bpftrace", "-p", str(workload.pid), "-e", f"uprobe:{workload.path}:runtime.mallocgc {{ @ = count(); }}"]


def _has_spoken(what: str) -> Callable[[Workload, str], bool]:
    return lambda _, said: what in said


def _mallocgc_has_a_breakpoint(workload: Workload, said: str) -> bool:
    del said
    exe = Executable.open(workload.path)
    try:
        address = FunctionTable.find(exe).lookup("runtime.mallocgc")[0].entry
    finally:
        exe.close()
    with open(f"/proc/{workload.pid}/mem", "rb") as memory:
        memory.seek(address)
        return memory.read(1) == _BREAKPOINT


_WATCHES = _has_spoken("watching process")
GOMEM = Tracer("gomem", _gomem(), _WATCHES, interrupted=False, settles=_LASTING)
SPANS = Tracer("gomem --with spans", _gomem("--with", "spans"), _WATCHES, interrupted=False, settles=_LASTING)
# It decides about its governed probe when it looks.
SERVE = Tracer("gomem serve", _serve, _has_spoken("events: bpf"), settles=12.0)
STRACE = Tracer("strace -f -e trace=memory", _strace, _has_spoken("attached"))
BPFTRACE = Tracer("bpftrace uprobe mallocgc", _bpftrace, _mallocgc_has_a_breakpoint)
TRACERS = {"gomem": GOMEM, "spans": SPANS, "serve": SERVE, "strace": STRACE, "bpftrace": BPFTRACE}
OURS = (GOMEM, SPANS, SERVE)


def missing(tracer: Tracer) -> str | None:
    """Return why a tracer cannot be measured here, None if it can."""
    if tracer is SPANS:
        told = subprocess.run([executable(), "trace", "--help"], capture_output=True, text=True, check=True).stdout
        return None if "spans" in told else "this gomem has no --with spans"
    for program, its in (("strace", STRACE), ("bpftrace", BPFTRACE)):
        if tracer is its and shutil.which(program) is None:
            return f"{program} is not installed"
    return None


class StuckError(Exception):
    """A tracer that does not attach, or does not end; says where its threads are."""

    def __init__(self, what: str, pid: int) -> None:
        threads = [f"{task.name}: {_word(task, 'wchan')}; {_word(task, 'stack')}" for task in _tasks(pid)]
        super().__init__("\n  ".join([what, *threads]))


def _tasks(pid: int) -> list[Path]:
    try:
        return sorted(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _word(task: Path, name: str) -> str:
    try:
        return " ".join((task / name).read_text().split())
    except OSError as error:
        return str(error.strerror)


def once_more(measured: Callable[[], _One]) -> _One:
    """Return what was measured; a tracer that is stuck is told of and, once, tried again."""
    try:
        return measured()
    except StuckError as error:
        print(f"{error}\n  Tried again.", file=sys.stderr, flush=True)
        return measured()


@contextmanager
def tracing(tracer: Tracer, workload: Workload, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run a tracer on a target; the block begins when it is attached, and may take `seconds`.

    Raises SystemExit with the tracer's words when it fails, StuckError when it does nothing.
    """
    command = tracer.command(workload, seconds)
    environment = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            said = _until_attached(tracer, workload, process, command)
            yield process
            if tracer.interrupted:
                process.send_signal(signal.SIGINT)
            said += _end(process)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode not in (0, 130, -signal.SIGINT):
        raise SystemExit(f"{shlex.join(command)} failed with status {process.returncode}: {said}")


def _until_attached(
    tracer: Tracer, workload: Workload, process: subprocess.Popen[bytes], command: Sequence[str]
) -> str:
    said = ""
    deadline = time.monotonic() + _ATTACHED_BY
    while not tracer.attached(workload, said):
        said += _heard(process, 0.05)
        if process.poll() is not None and not tracer.attached(workload, said):
            raise SystemExit(f"{shlex.join(command)} does not attach: status {process.returncode}, {said}")
        if time.monotonic() > deadline:
            raise StuckError(f"{shlex.join(command)} does not attach: {said}", process.pid)
    return said


def _end(process: subprocess.Popen[bytes]) -> str:
    said = ""
    deadline = time.monotonic() + _ENDED_BY
    while process.poll() is None:
        said += _heard(process, 0.1)
        if time.monotonic() > deadline:
            raise StuckError(f"process {process.pid} ({process.args!r}) does not end: {said}", process.pid)
    return said + _heard(process, 0)


def _heard(process: subprocess.Popen[bytes], seconds: float) -> str:
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        if not selector.select(seconds):
            return ""
    text = os.read(process.stderr.fileno(), 65536).decode(errors="replace")
    if not text:
        time.sleep(seconds)  # it has closed its standard error and still runs
    return text
