"""Uprobes of one target that are put on and taken off together, as often as wanted."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from gomem.bpf.probes import uprobes
from gomem.bpf.probes.operands import pack_operands
from gomem.bpf.probes.uprobe_program import UprobeProgram
from gomem.bpf.probes.uprobes import Keeper
from gomem.bpf.program import Counter
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.process.guardian import Hold


class Probed(Protocol):
    """The loaded programs that run at governed uprobes of one target (bpf/shared_program.py: class TargetPrograms)."""

    def uprobe(self) -> UprobeProgram:
        """Return the program for the rare roles. Raises BackendUnavailable."""

    def span_uprobe(self) -> UprobeProgram:
        """Return the program for span events. Raises BackendUnavailable."""

    def set_operands(self, index: int, packed: bytes) -> None:
        """Tell where more arguments of a uprobe are, and whether its hits are told."""

    def counter(self, index: int) -> int:
        """Return one of the target's counters."""


class HeldUprobes:
    """They are on together or not at all. Not for two threads at once.

    The files that they are in must stay open as long as they may come back.
    """

    def __init__(
        self, program: UprobeProgram | None, pid: int, keeper: Keeper, cookies: Mapping[UprobeSpec, int]
    ) -> None:
        """`keeper` holds the descriptors that keep them on; `cookies` are those of all, which have their counters.

        Without a program they cannot be put on.
        """
        self._program = program
        self._pid = pid
        self._keeper = keeper
        self._cookies = cookies
        self._held: Hold | None = None
        self._leaving: Hold | None = None  # the last one that was released

    @property
    def attached(self) -> bool:
        """Whether they are on the target."""
        return self._held is not None and self._held.let_go_at is None

    @property
    def off(self) -> bool:
        """Whether the kernel has taken them off since they were on last: before, each hit would count twice."""
        return self._leaving is None or self._leaving.released.is_set()

    @property
    def settled(self) -> threading.Event:
        """Set when the kernel has taken them off, or will when a debugger leaves."""
        if self._leaving is not None:
            return self._leaving.settled
        nothing = threading.Event()
        nothing.set()
        return nothing

    def put_on(self) -> None:
        """Put all of them on. Raises WouldWait, GomemError or OSError; then none is."""
        if self._program is None:
            raise BackendUnavailable("there is no program for these uprobes")
        held, skipped = uprobes.attach_held(
            self._keeper, self._program, list(self._cookies), self._pid, self._cookies, dear=True
        )
        if skipped or held is None:
            if held is not None:
                held.release()
            raise BackendUnavailable(f"{skipped[0].spec.symbol}: {skipped[0].reason}")
        self._held = held

    def take_off(self) -> None:
        """Take them off; they are when `off` says so."""
        self._leaving, self._held = self._held, None
        if self._leaving is not None:
            self._leaving.release()

    def lost_at(self) -> int | None:
        """Return when they were taken off because we were stopped ourselves (CLOCK_MONOTONIC ns), once; else None."""
        when = self._held.let_go_at if self._held is not None else None
        if when is not None:
            self._held = None
        return when


class SwitchableUprobes(HeldUprobes):
    """Those whose program tells events: their hits are counted always, and told only if that is wanted."""

    def __init__(
        self,
        programs: Probed,
        program: UprobeProgram | None,
        pid: int,
        keeper: Keeper,
        cookies: Mapping[UprobeSpec, int],
    ) -> None:
        """For the rest see HeldUprobes."""
        super().__init__(program, pid, keeper, cookies)
        self._programs = programs

    def tell(self, *, on: bool) -> None:
        """Let the hits of those with more arguments than a cookie has room for be told, or not."""
        for spec, cookie in self._cookies.items():
            if spec.operands:
                self._programs.set_operands(uprobes.counter_of(cookie), pack_operands(spec.operands, on=on))

    def hits(self) -> list[int]:
        """Return how often each was hit so far."""
        return [self._programs.counter(Counter.HITS + uprobes.counter_of(one)) for one in self._cookies.values()]
