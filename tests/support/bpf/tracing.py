"""What the live tests of the BPF source share: probes for a target, and events gathered over a while."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gomem.bpf.probes.placing import place
from gomem.bpf.probes.uprobes import Backend
from gomem.bpf.source import BpfSource
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import RARE_ROLES, EventBatch, EventKind, no_events
from gomem.tracer.layout.roles import resolve_roles


class Binary:
    """An open executable of a known release, and uprobes for its roles."""

    def __init__(self, path: Path | str, release: str) -> None:
        self.exe = Executable.open(path)
        self.functions = FunctionTable.find(self.exe)
        roles = resolve_roles(f"go{release}", "amd64", lambda name: bool(self.functions.lookup(name)))
        self._probes = [probe for probe in roles if probe.kind in RARE_ROLES]

    def specs(self, *kinds: EventKind) -> list[UprobeSpec]:
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

    def has_breakpoint(self, pid: int, spec: UprobeSpec) -> bool:
        """Return whether an int3 is at the place of a uprobe in the memory of a (non-PIE) process."""
        entry = self.functions.lookup(spec.symbol)[0].entry
        with Path(f"/proc/{pid}/mem").open("rb") as memory:
            memory.seek(entry - self.exe.file_offset(entry) + spec.offset)
            return memory.read(1) == b"\xcc"


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


def gather(source: BpfSource, *wanted: EventKind, seconds: float = 60.0) -> EventBatch:
    """Poll until an event of each of the kinds was there; raise TimeoutError if one never is."""
    deadline = time.monotonic() + seconds
    batches = [no_events()]
    missing = set(wanted)
    while missing:
        if time.monotonic() > deadline:
            names = ", ".join(kind.name for kind in missing)
            raise TimeoutError(f"after {sum(map(len, batches))} events still none of {names}")
        batches.append(source.poll(0.2))
        missing -= {EventKind(kind) for kind in np.unique(batches[-1]["kind"])}
    return np.concatenate(batches)


def kinds_of(events: EventBatch) -> list[EventKind]:
    """Return the kinds of events, in order."""
    return [EventKind(kind) for kind in events["kind"]]
