"""How the memory system calls of targets are seen: at functions of the kernel, or else at tracepoints."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Literal, Protocol

from gomem.bpf import syscalls
from gomem.bpf.compat_trial import Outcome
from gomem.bpf.compat_watch import CompatWatch
from gomem.bpf.probes.call_functions import ByFunctions, CallFunctions
from gomem.bpf.probes.call_tracepoints import CallTracepoints, refused_tracepoint
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import Counter
from gomem.tracer.errors import GomemError

# Functions of the kernel; tracepoints of single calls; those of all calls. The former cost others less.
SeenBy = ByFunctions | Literal["single calls", "all calls"]

# The exit comes first, or a call entered between the two would never be seen to end.
_OF_ALL_CALLS = (("sys_exit", "on_sys_exit"), ("sys_enter", "on_sys_enter"))
_LASTING = 2.0  # seconds of watching from which on the cheaper tracepoints are worth their detaching


class CallPrograms(Protocol):
    """The loaded programs (bpf/shared_program.py)."""

    def tracepoint(self, name: str) -> int:
        """Return the fd of a raw tracepoint program."""

    def call_tracepoint(self, name: str) -> int:
        """Return the fd of a program for the tracepoints of single calls. Raises BackendUnavailable."""

    def call_functions(self, way: ByFunctions) -> CallFunctions:
        """Run programs at functions of the kernel. Raises BackendUnavailable or NotPermitted."""

    def counter(self, index: int) -> int:
        """Return one of the counters, of all targets together."""

    def try_compat(self) -> Outcome:
        """Find out how 32-bit calls are told from others (bpf/compat_trial.py)."""


class MemoryCalls:
    """Sees the memory system calls of targets: by raw tracepoints first, by what costs others less after some seconds.

    That is CallFunctions, or else CallTracepoints, which leave 32-bit calls out: there is a CompatWatch then. Where it
    turns out that the kernel often fails to run the programs at its functions, they are given up.
    """

    def __init__(self, program: CallPrograms, seen_by: SeenBy | None = None, *, lasting: bool = False) -> None:
        """Attach. Raises NotPermitted or BackendUnavailable.

        `seen_by`: by this or by raw tracepoints; None: by the best that works. `lasting`: there are raw ones only where
        nothing better can be had, else for the first seconds.
        """
        self._program = program
        self._raw: list[int] = []
        self._functions: CallFunctions | None = None
        self._single: CallTracepoints | None = None
        self._watch: CompatWatch | None = None
        self._compat_expected = False
        self._tried_compat: Outcome | None = None
        better: tuple[SeenBy, ...] = ("functions", "kprobes", "single calls")
        self._untried = [way for way in better if seen_by in (None, way)]
        self._lasting_from = time.monotonic() + _LASTING
        if lasting:
            self._change()
        if self.seen_by == "all calls":
            self._attach_raw()

    def _attach_raw(self) -> None:
        self._try_compat()
        for name, function in _OF_ALL_CALLS:
            try:
                self._raw.append(syscalls.open_raw_tracepoint(self._program.tracepoint(function), name))
            except OSError as error:
                close_all(self._raw)
                raise refused_tracepoint(name, error) from error

    @property
    def seen_by(self) -> SeenBy:
        """By what they are seen just now."""
        if self._functions is not None:
            return self._functions.seen_by
        return "single calls" if self._single is not None else "all calls"

    @property
    def compat(self) -> Outcome:
        """Whether it is possible that there are 32-bit calls, and whether they are told from others."""
        return Outcome(self._functions.compat, told=True) if self._functions is not None else self._try_compat()

    def _try_compat(self) -> Outcome:
        if self._tried_compat is None:
            self._tried_compat = self._program.try_compat()
        return self._tried_compat

    def leave_others_alone(self) -> bool:
        """Once it is worth it, cost other system calls less, if the kernel lets us.

        Return whether it may have become known that a target makes 32-bit calls.
        """
        if self._functions is not None:
            if self._functions.misses_many(self._program.counter(Counter.UNENDED)):
                self._give_up(self._functions)
        elif self._single is None and self._untried and time.monotonic() >= self._lasting_from:
            self._change()
        if self._watch is None or self._watch.due:
            return False
        self._watch.tick(wanted=self._compat_wanted())
        return True

    def _change(self) -> None:
        """Use something better from now on, if the kernel lets us; nothing is tried twice."""
        while self._untried:
            way = self._untried[0]
            if way == "single calls" and self._compat_wanted():
                return  # the raw ones, which see all, cost less than both together
            del self._untried[0]
            with contextlib.suppress(OSError, GomemError):
                if way == "functions" or way == "kprobes":
                    self._functions = self._program.call_functions(way)
                else:
                    self._use_single_calls()
                close_all(self._raw)
                return

    def _use_single_calls(self) -> None:
        programs = (self._program.call_tracepoint(name) for name in ("on_call_enter", "on_call_exit"))
        compat = self._try_compat()
        self._single = CallTracepoints(*programs)
        if compat.possible and compat.told:
            begins, ends = (self._program.tracepoint(name) for name in ("on_compat_enter", "on_sys_exit"))
            self._watch = CompatWatch(begins, ends, wanted=self._compat_wanted())

    def _give_up(self, functions: CallFunctions) -> None:
        """Use kprobes or tracepoints in the place of functions, if there are any."""
        self._functions = None
        try:
            self._change()
            if self.seen_by == "all calls":
                self._attach_raw()
        except GomemError:
            self._functions = functions
            functions.keep()
            return
        functions.close()

    @property
    def due(self) -> float:
        """Return the seconds until `leave_others_alone` should be called again."""
        return self._watch.due if self._watch is not None else math.inf

    @property
    def compat_unwatched(self) -> float:
        """Until when (time.monotonic()) 32-bit calls were not watched all the time; -inf: they always were."""
        return self._watch.last_off if self._watch is not None else -math.inf

    def expect_compat(self, expected: bool) -> None:
        """Take it that some target may make 32-bit calls at any time, or that none does."""
        self._compat_expected = expected
        if expected and self._watch is not None:
            self._watch.begin()

    def _compat_wanted(self) -> bool:
        return self._compat_expected or bool(self._program.counter(Counter.COMPAT_HITS))

    def close(self) -> None:
        """Detach. Idempotent."""
        close_all(self._raw)
        self._untried = []
        if self._watch is not None:
            self._watch.close()
        functions, self._functions = self._functions, None
        if functions is not None:
            functions.close()
        single, self._single = self._single, None
        rest = single.close() if single is not None else None
        if rest is not None:
            rest.join()  # whoever looks at our descriptors afterwards shall not see them go
