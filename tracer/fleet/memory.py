"""The memory that following processes may take, and which process goes without when there is not enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gomem.bpf.shared_target import SharedTarget
from gomem.bpf.syscalls import return_free_memory
from gomem.tracer.fleet.member import Member
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine import usage
from gomem.tracer.machine.holding import held_bytes
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import StartedBackend

LEAST = 1 << 20  # bytes: what to leave a process alone that we hold less for would not help
_CHECK_EVERY = 1.0  # seconds
_GAIN = 0.05  # of the budget: more is let go of than is too much, lest the next look be too much again
_FIRST_GAP = 60.0  # seconds until a process that took too much is tried again; twice as long each time
_LONGEST_GAP = 3600.0
# What processes share, and what has its size from us.
_NOT_THEIRS = (GoProgram, Layout, Inspector, Target, SharedTarget, StartedBackend)


class MemoryBudget:
    """Watches our own memory."""

    def __init__(
        self,
        limit: int,
        resident: Callable[[], int] = usage.resident_bytes,
        passing: Callable[[], bool] = lambda: False,
    ) -> None:
        """`limit`: bytes of RSS; `resident` returns what we have, `passing` whether other work of ours takes some now.

        What that takes is given back in a moment, and no reason to leave a process alone.
        """
        self.limit = limit
        self.shed = 0  # times that a process was left alone
        self.used_up = False  # and there is nobody to leave alone
        self._resident = resident
        self._passing = passing
        self._checked = float("-inf")

    def greediest(self, members: Iterable[Member]) -> list[Member]:
        """Return the processes to leave alone now, those that we hold most for first.

        Empty while we keep to the budget, and when nobody holds much.
        """
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY or self._passing():
            return []
        self._checked = now
        self.used_up = False
        if self._resident() <= self.limit:
            return []
        return_free_memory()
        excess = self._resident() - self.limit
        if excess <= 0:
            return []
        followed = [one for one in members if one.following is not None and not one.visited]
        for member in followed:
            if member.measured_at != member.view.looks:
                member.held_bytes, member.measured_at = _held(member), member.view.looks
        excess += int(self.limit * _GAIN)
        chosen: list[Member] = []
        for member in sorted(followed, key=lambda one: one.held_bytes, reverse=True):
            if excess <= 0 or member.held_bytes < LEAST:
                break
            excess -= member.held_bytes
            chosen.append(member)
        self.used_up = not chosen
        self.shed += len(chosen)
        return chosen

    def why(self, member: Member) -> str:
        """Say why a process is left alone."""
        return (
            f"gomem's memory budget of {self.limit >> 20} MB is used up, and this process is among those that take "
            f"most of it: {member.held_bytes >> 20} MB; tried again in {self.gap(member):.0f} s; a larger "
            "--memory-budget helps"
        )

    def gap(self, member: Member) -> float:
        """Return the seconds for which a process is left alone that was `member.shed` times before."""
        return float(min(_FIRST_GAP * 2.0 ** min(member.shed, 16), _LONGEST_GAP))


def _held(member: Member) -> int:
    return held_bytes((member.following, member.view, member.inbox), _NOT_THEIRS)
