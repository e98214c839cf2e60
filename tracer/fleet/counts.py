"""What a fleet counts of its own work since it began."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from gomem.bpf.shared_source import SharedSource
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.fleet.memory import MemoryBudget
from gomem.tracer.fleet.view import Health
from gomem.tracer.machine import usage


@dataclass(slots=True)
class Counts:
    """Plain counts, and the rounds: one is done when each process was visited; seconds are those spent there."""

    rounds: int = 0
    round_seconds: float = 0.0
    events: int = 0
    ended: int = 0
    paused: int = 0
    errors: int = 0
    visited: set[int] = field(default_factory=set)  # in this round
    started_at: float = field(default_factory=time.time)  # seconds since the epoch
    _this_round: float = 0.0
    _empty_since: float = field(default_factory=time.monotonic)

    def visit(self, pid: int, seconds: float, all_pids: Collection[int]) -> None:
        """Count a visit that took so long; `all_pids` make a round."""
        self.visited.add(pid)
        self._this_round += seconds
        if self.visited >= set(all_pids):
            self.rounds += 1
            self.round_seconds, self._this_round = self._this_round, 0.0
            self.visited.clear()

    def nobody_there(self, interval: float) -> bool:
        """Count a round of `interval` seconds without anybody to visit; tell whether one is over."""
        now = time.monotonic()
        if now - self._empty_since < interval and self.rounds:
            return False
        self._empty_since = now
        self.rounds += 1
        return True

    def somebody_there(self) -> None:
        """Begin anew to wait for a round without anybody."""
        self._empty_since = time.monotonic()

    def health(
        self, source: SharedSource | None, discovery: Discovery, reason: str, interval: float, memory: MemoryBudget
    ) -> Health:
        """Return how we are doing; `interval`: seconds between looks; `reason`: why there are events, or none."""
        return Health(
            started_at=self.started_at,
            backend="procfs" if source is None else "bpf",
            backend_reason=reason,
            cpu_seconds=usage.cpu_seconds(),
            resident_bytes=usage.resident_bytes(),
            open_fds=usage.open_fds(),
            rounds=self.rounds,
            round_seconds=self.round_seconds,
            interval_seconds=interval,
            events=self.events,
            lost_events=source.lost_total if source else 0,
            paused_events=self.paused,
            discovery=discovery.mode,
            processes_seen=discovery.processes_seen,
            go_processes_seen=discovery.go_processes_seen,
            discovery_errors=discovery.errors + self.errors,
            targets_ended=self.ended,
            memory_budget=memory.limit,
            shed=memory.shed,
        )
