"""What the live tests of the BPF source share: probes for a target, and events gathered over a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bpf.placing import place
from bpf.source import BpfSource
from bpf.uprobes import Backend, UprobeSpec
from tracer.binary.executable import Executable
from tracer.binary.pclntab import FunctionTable
from tracer.events import EventBatch, Kind, no_events
from tracer.layout.roles import resolve_roles


class Binary:
    """An open executable of a known release, and uprobes for its roles."""

    def __init__(self, path: Path | str, release: str) -> None:
        self.exe = Executable.open(path)
        self.functions = FunctionTable.find(self.exe)
        roles = resolve_roles(f"go{release}", "amd64", lambda name: bool(self.functions.lookup(name)))
        self._probes = [probe for probe in roles if probe.kind != Kind.MALLOCGC]

    def specs(self, *kinds: Kind) -> list[UprobeSpec]:
        """Return the uprobes of some roles, or of all."""
        return place(self.exe, self.functions, [probe for probe in self._probes if not kinds or probe.kind in kinds])

    def name_at(self, address: int) -> str:
        """Return the function around an address of a non-PIE program."""
        found = self.functions.at(address)
        return found.name if found else hex(address)

    def called_before(self, address: int) -> str | None:
        """Return the function that the `call rel32` which ends at `address` calls, None if there is no such call."""
        raw = self.exe.read(address - 5, 5)
        if raw[0] != 0xE8:
            return None
        target = address + int.from_bytes(raw[1:], "little", signed=True)
        found = self.functions.at(target)
        return found.name if found is not None and found.entry == target else None


@contextmanager
def opened(path: Path | str, release: str) -> Iterator[Binary]:
    """Open a Binary until the block ends."""
    binary = Binary(path, release)
    try:
        yield binary
    finally:
        binary.exe.close()


@contextmanager
def tracing(
    pid: int, specs: Sequence[UprobeSpec] = (), backend: Backend = "auto", ring_bytes: int = 1 << 20
) -> Iterator[BpfSource]:
    """Trace a process until the block ends."""
    source = BpfSource(pid, specs, ring_bytes, backend)
    source.start()
    try:
        yield source
    finally:
        source.stop()


def gather(source: BpfSource, enough: Callable[[EventBatch], bool], seconds: float = 30.0) -> EventBatch:
    """Poll until the events so far are `enough`; raise TimeoutError if they never are."""
    deadline = time.monotonic() + seconds
    events = no_events()
    while not enough(events):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {len(events)} events still not enough")
        events = np.concatenate([events, source.poll(0.2)])
    return events


def kinds_of(events: EventBatch) -> list[Kind]:
    """Return the kinds of events, in order."""
    return [Kind(kind) for kind in events["kind"]]
