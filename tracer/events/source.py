"""The contract that every source of events keeps: BPF, strace, a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch
from gomem.tracer.report import Limit


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """One placed probe: the role or syscall it serves, the symbol it sits on, and its hits so far."""

    role: str
    symbol: str
    hits: int


class EventSource(Protocol):
    """Where events come from. `stop` is idempotent and leaves nothing behind in the kernel.

    `start` raises BackendUnavailable or NotPermitted with the reason and the fix.
    """

    name: str  # "bpf" | "strace" | "replay"

    @property
    def lost(self) -> int:
        """Return how many events are known to be lost so far."""

    def start(self) -> None:
        """Begin to deliver; when this returns, every later event of the target is seen."""

    def poll(self, timeout: float) -> EventBatch:
        """Wait up to `timeout` seconds for events; return what is there, possibly nothing."""

    def stop(self) -> None:
        """Detach. A last `poll(0)` afterwards returns what was still buffered."""

    def probes(self) -> list[ProbeStatus]:
        """Return the placed probes with their hit counts."""

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Watch for more calls, of a plugin that the target has loaded; return what is not watched for.

        A source that sees no functions at all does nothing, and returns nothing. Raises NotPermitted.
        """

    def watch_closely(self) -> None:
        """See for a while what it costs too much to see all the time: memory changed, and no event has told of that."""

    def limits(self) -> list[Limit]:
        """Return what it was to see and does not, as known by now; what `add_uprobes` has returned is not in it."""
