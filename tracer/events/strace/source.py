"""The strace event source: the memory system calls of a process, on machines without BPF.

What it costs and lacks: strace stops the target's threads twice at each of their system calls (at all
of them, not only the traced ones), and sees no runtime functions and no stacks.

What it never does is hold the target's life in its hands:

- A command is not launched by strace but by us, and strace attaches to it. A strace that launches cannot be
  asked to let go again (with -o it blocks SIGINT and SIGTERM until the program ends), and `--seccomp-bpf` leaves
  a filter in the program that makes each of its mmap calls fail with ENOSYS as soon as no tracer is there.
- strace writes into memory (memfd), not into a pipe: it can never block on us, and the target never on it.
  Its file size limit stays a fixed distance ahead of what we have read: if we stop reading, strace
  ends, and the kernel lets the target go on.
- strace ends when we do, however we end (PR_SET_PDEATHSIG), and the kernel detaches what it traced.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted, TargetGone
from gomem.tracer.events.after_exec import AfterExec
from gomem.tracer.events.record import SYSCALL_KINDS, EventBatch, no_events
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.events.strace.membership import Membership, status_field
from gomem.tracer.events.strace.parser import StraceParser
from gomem.tracer.events.strace.spool import Spool
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.proc.clocks import TimeOfDay
from gomem.tracer.process.resuming import STOP_FILTERED, UNDER_A_FILTER, own_children_resume
from gomem.tracer.report import Limit

if TYPE_CHECKING:
    from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec

_TRACED = "mmap mmap2 munmap mremap mprotect madvise process_madvise brk execve execveat clone clone3 fork vfork"
_ATTACH_SECONDS = 10.0
_ATTEMPTS = 5
_STOP_SECONDS = 5.0
_TICK = 0.02
_PR_SET_PDEATHSIG = 1


class StraceSource:
    """Watches a running process, or one that `Launched` holds before its exec.

    With `from_exec` everything before the first exec is dropped. `start` must be called by a thread that
    lives as long as the source (the kernel ends strace with the thread that started it).
    `failure` says why strace ended although the target lives on, else it is None.
    """

    name = "strace"

    def __init__(self, pid: int, *, from_exec: bool = False, filtered: bool = False) -> None:
        """`from_exec`: it was forked by us, and will execute a program. `filtered`: also under a seccomp filter."""
        self.pid = pid
        self._filtered = filtered
        self.failure: str | None = None
        self._strace: subprocess.Popen[bytes] | None = None
        self._output = Spool("strace-output")
        self._messages = Spool("strace-messages")
        self._said = b""
        self._time_of_day = TimeOfDay()
        self._parser = StraceParser(self._time_of_day.moment)
        self._members = Membership(pid)
        self._after_exec = AfterExec() if from_exec else None
        self._hits: Counter[int] = Counter()
        self._finished = False

    @property
    def lost(self) -> int:
        """Lines that could not be read, and events of tasks that nobody could place."""
        return self._parser.unparsed + self._members.lost

    def start(self) -> None:
        """Attach to all threads; raises BackendUnavailable, NotPermitted or TargetGone with the reason."""
        strace = shutil.which("strace")
        try:
            if strace is None:
                raise BackendUnavailable("strace is not installed", "apt-get install strace")
            self._check_target()
            for attempt in range(_ATTEMPTS):
                self._attach(strace)
                if self._wait_attached():
                    break
                self._end_strace()
                if attempt == _ATTEMPTS - 1:
                    raise BackendUnavailable(
                        f"strace cannot catch all threads of process {self.pid}: it starts new ones all the time"
                    )
        except GomemError:
            self.stop()
            raise

    def poll(self, timeout: float) -> EventBatch:
        """Return the target's events since the last call, waiting up to `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while True:
            events = self._read()
            left = deadline - time.monotonic()
            if len(events) or left <= 0 or self._finished:
                if self._finished and not len(events) and left > 0:
                    time.sleep(left)
                return events
            time.sleep(min(_TICK, left))

    def stop(self) -> None:
        """Detach: strace is asked to, and reaped. The target goes on, whatever strace was doing."""
        self._end_strace()

    def probes(self) -> list[ProbeStatus]:
        """Return the traced system calls with the number of calls seen."""
        return [ProbeStatus(kind.name.lower(), "ptrace", self._hits[kind]) for kind in SYSCALL_KINDS]

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Do nothing: no function is seen, so none of a plugin is missed."""
        return []

    def watch_closely(self) -> None:
        """Do nothing: all that it can see it sees all the time."""

    def limits(self) -> list[Limit]:
        """Return what is not seen because strace ended although the target lives on."""
        if self.failure is None:
            return []
        return [Limit("strace-ended", "events until the end", self.failure, "trace again")]

    def _check_target(self) -> None:
        task = Path("/proc") / str(self.pid)
        state = status_field(task, "State")
        if state is None or state[:1] in ("Z", "X"):
            raise TargetGone(f"no process {self.pid}" if state is None else f"process {self.pid} has ended (zombie)")
        if not self._filtered and self._under_a_filter() and not (self._after_exec and own_children_resume()):
            raise BackendUnavailable(f"strace must not stop process {self.pid}: {UNDER_A_FILTER}", STOP_FILTERED)
        tracer = int(status_field(task, "TracerPid") or 0)
        if tracer:
            name = status_field(Path("/proc") / str(tracer), "Name") or "in another PID namespace"
            raise BackendUnavailable(
                f"process {self.pid} is already traced by process {tracer} ({name})",
                "a process can have one tracer: end that one, or use --backend bpf",
            )

    def _under_a_filter(self) -> bool:
        tasks = (Path("/proc") / str(self.pid) / "task").glob("*")
        return any(status_field(task, "Seccomp") == "2" for task in tasks)

    def _attach(self, strace: str) -> None:
        self._messages.clear()
        self._output.clear()
        self._said = b""
        self._strace = subprocess.Popen(
            [strace, *_options(strace, self.pid), "-o", f"/proc/self/fd/{self._output.fd}", "-p", str(self.pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._messages.fd,
            pass_fds=[self._output.fd],
            process_group=0,  # Ctrl-C is for us, not for strace
            preexec_fn=_dies_with(os.getpid(), _set_death_signal()),
        )
        self._allow_more()

    def _wait_attached(self) -> bool:
        """Wait until strace says so and the kernel agrees for every thread; False if threads slipped through."""
        strace = self._strace
        assert strace is not None
        deadline = time.monotonic() + _ATTACH_SECONDS
        attached = re.compile(rb"Process %d attached" % self.pid)
        while time.monotonic() < deadline:
            ended = strace.poll() is not None
            self._hear()
            if attached.search(self._said) and (not ended or not Path(f"/proc/{self.pid}").exists()):
                return self._untraced_threads() == 0
            if ended:
                raise self._refusal()
            time.sleep(0.002)
        raise BackendUnavailable(
            f"strace did not attach to process {self.pid} within {_ATTACH_SECONDS:.0f} s",
            "a thread of it may hang in the kernel (state D in /proc/PID/task/*/stat)",
        )

    def _untraced_threads(self) -> int:
        """Count threads without our strace: born of a thread that was not seized yet, after the list was read."""
        assert self._strace is not None
        tasks = Path("/proc") / str(self.pid) / "task"
        try:
            states = [(status_field(task, "TracerPid"), status_field(task, "State")) for task in tasks.iterdir()]
        except OSError:
            return 0
        ours = str(self._strace.pid)
        return sum(tracer not in (None, ours) and (state or "Z")[:1] not in "ZX" for tracer, state in states)

    def _refusal(self) -> GomemError:
        said = self._said.decode(errors="replace").strip()
        last = said.splitlines()[0].partition("strace: ")[2] if said else "it ended without a word"
        self._check_target()
        if "Operation not permitted" in said:
            return NotPermitted(
                f"strace may not attach to process {self.pid}: operation not permitted",
                remedy_for(self.pid),
            )
        return BackendUnavailable(f"strace cannot attach to process {self.pid}: {last}")

    def _hear(self) -> None:
        self._said = (self._said + self._messages.read())[-65536:]

    def _allow_more(self) -> None:
        """Let strace write a bounded number of bytes beyond what was read so far."""
        assert self._strace is not None
        limit = max(self._output.position, self._messages.position) + Spool.MAX_UNREAD
        with contextlib.suppress(OSError, ValueError):  # it has ended, or inherited a lower hard limit
            hard = resource.prlimit(self._strace.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self._strace.pid, resource.RLIMIT_FSIZE, (limit, hard))

    def _read(self) -> EventBatch:
        if self._strace is None or self._finished:
            return no_events()
        ended = self._strace.poll() is not None  # first: what is read afterwards is all there is
        self._hear()
        self._time_of_day.look()
        batches = [self._parser.feed(self._output.read())]
        while ended and (rest := self._output.read()):
            batches.append(self._parser.feed(rest))
        if ended:
            batches.append(self._parser.finish())
            self._finished = True
        else:
            self._allow_more()
        self._members.learn(self._parser.take_births())
        events = self._members.filter(np.concatenate(batches))
        if self._finished:
            self._finish()
        if self._after_exec:
            events = self._after_exec.filter(events)
        kinds, counts = np.unique(events["kind"], return_counts=True)
        self._hits.update(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))
        return events

    def _finish(self) -> None:
        self._members.give_up()
        self._output.close()
        self._messages.close()

    def _end_strace(self) -> None:
        strace = self._strace
        if strace is None:
            return
        if strace.poll() is not None:
            self._explain_end(strace)
            return
        strace.send_signal(signal.SIGTERM)
        try:
            strace.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            strace.kill()
            strace.wait()

    def _explain_end(self, strace: subprocess.Popen[bytes]) -> None:
        state = status_field(Path("/proc") / str(self.pid), "State")
        if self.failure is None and state is not None and state[:1] not in ("Z", "X"):
            self.failure = f"strace ended before the target (status {strace.returncode})"


def _options(strace: str, pid: int) -> list[str]:
    """Return what makes this strace's output as exact and as short as it can."""
    said = subprocess.run([strace, "-V"], capture_output=True, check=False, timeout=10).stdout
    match = re.search(rb"version (\d+)\.(\d+)", said)
    version = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    options = ["-f", "-s", "0", "-e", "signal=none", "-e", "trace=" + ",".join("?" + name for name in _TRACED.split())]
    if version >= (5, 6):
        options += ["-X", "raw", "--absolute-timestamps=format:unix,precision:ns", "--syscall-times=ns"]
    else:
        options += ["-ttt", "-T"]
    if version >= (5, 9) and _namespace(pid) != _namespace(os.getpid()):
        options.append("--pidns-translation")
    return options


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _set_death_signal() -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    return set_death_signal


def _dies_with(parent: int, set_death_signal: Callable[[], None]) -> Callable[[], None]:
    def in_the_child() -> None:
        set_death_signal()
        if os.getppid() != parent:
            os._exit(1)

    return in_the_child
