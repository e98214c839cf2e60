"""One deterministic Go program under BPF, under strace, in a log of strace, and in a recording: the same calls."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.source import BpfSource
from gomem.tracer.cli.watching import watch
from gomem.tracer.events.record import SYSCALL_KINDS, EventBatch, EventKind
from gomem.tracer.events.source import EventSource
from gomem.tracer.events.strace.log import StraceLog
from gomem.tracer.events.strace.source import StraceSource
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.process.launch import Launched
from gomem.tracer.recording.reader import RecordingReader
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.watch.backend import TraceRequest
from gomem.tracer.watch.from_exec import FromExec
from tests.support.builds import build
from tests.support.requirements import program

pytestmark = pytest.mark.bpf

ADDR_NO_RANDOMIZE = 0x0040000
# Before Go 1.26 the heap's base is fixed; one P and no collection leave nothing to chance.
STEADY = {"GOMAXPROCS": "1", "GOGC": "off", "GODEBUG": "asyncpreemptoff=1"}
DESCRIPTOR: dict[int, int] = {EventKind.MMAP: 4, EventKind.PROCESS_MADVISE: 0}
Calls = list[tuple[int, tuple[int, ...], int]]


@contextmanager
def steady() -> Iterator[None]:
    """Within the block, what this process forks is laid out alike each time, reads one line, and writes to nobody."""
    libc = ctypes.CDLL(None)
    before = libc.personality(0xFFFFFFFF)
    if libc.personality(before | ADDR_NO_RANDOMIZE) < 0:
        pytest.skip("personality(2) is not permitted")
    environment = {name: os.environ.get(name) for name in STEADY}
    os.environ.update(STEADY)
    line, null = os.memfd_create("a line"), os.open(os.devnull, os.O_WRONLY)
    os.write(line, b"\n")
    os.lseek(line, 0, os.SEEK_SET)
    kept = [os.dup(0), os.dup(1)]
    os.dup2(line, 0)
    os.dup2(null, 1)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
        for descriptor in (*kept, line, null):
            os.close(descriptor)
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        libc.personality(before)


def watched(source_of: Callable[[int], EventSource], argv: list[str]) -> EventBatch:
    """Launch a program under a source; return its events from its exec to its end."""
    with steady(), Launched(argv) as launched:
        source = source_of(launched.pid)
        source.start()
        try:
            launched.resume()
            accept, batches = FromExec(), []
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                batches.append(accept(source.poll(0.2)))
                if (batches[-1]["kind"] == EventKind.EXIT).any():
                    break
        finally:
            source.stop()
            launched.wait(60)
        batches.append(accept(source.poll(0)))
        assert source.lost == 0
    return np.concatenate(batches)


def by_bpf(argv: list[str], scratch: Path) -> EventBatch:
    del scratch
    return watched(BpfSource, argv)


def by_strace(argv: list[str], scratch: Path) -> EventBatch:
    del scratch
    return watched(lambda pid: StraceSource(pid, from_exec=True), argv)


def by_log(argv: list[str], scratch: Path) -> EventBatch:
    path = scratch / "log"
    strace = [program("strace", "strace"), "-f", "-ttt", "-T", "-e", "trace=memory", "-o", str(path)]
    with steady():
        subprocess.run([*strace, *argv], check=True, timeout=60)
    log = StraceLog()
    events = np.concatenate([log.feed(path.read_bytes()), log.finish()])
    assert log.unparsed == 0
    return events


def by_recording(argv: list[str], scratch: Path) -> EventBatch:
    # Of strace: the uprobes of BPF make the kernel map a page for them, and all others move by it.
    recorder = Recorder(str(scratch / "recording"))
    with steady():
        watch(TraceRequest(None, tuple(argv), None, "strace", False), lambda: recorder)
    recorder.close()
    with RecordingReader(str(scratch / "recording")) as reader:
        steps = [step for content in reader.contents() if isinstance(content, list) for step in content]
    return np.concatenate([step.batch for step in steps])


def calls(events: EventBatch) -> Calls:
    """Return the system calls in the order of their ends.

    A descriptor is an int: of a register with -1 in it the kernel, and so strace, looks at the lower half only. In
    mremap strace leaves out the fifth argument where the flags do not ask for it.
    """
    rows = []
    for event in events[np.isin(events["kind"], SYSCALL_KINDS)]:
        kind, args = int(event["kind"]), event["args"].tolist()
        if kind in DESCRIPTOR:
            args[DESCRIPTOR[kind]] &= 0xFFFFFFFF
        rows.append((kind, tuple(args[:4] if kind == EventKind.MREMAP else args), int(event["result"])))
    return rows


def space(events: EventBatch) -> tuple[list[int], list[int]]:
    """Return the address space that the events build from nothing."""
    model = AddressSpaceModel.empty()
    model.apply(events[np.isin(events["kind"], SYSCALL_KINDS)])
    starts, values = model.mappings.map.columns()
    return starts.tolist(), values.tolist()


@pytest.mark.parametrize("release", ["1.19", "1.25.5"])
def test_all_sources_see_the_same_calls_and_build_the_same_address_space(release: str, tmp_path: Path) -> None:
    argv = [str(build("mappings", release))]
    events = {source.__name__: source(argv, tmp_path) for source in (by_bpf, by_strace, by_log, by_recording)}
    seen = {name: calls(one) for name, one in events.items()}
    assert len(seen["by_bpf"]) > 60
    assert {EventKind(kind).name for kind, _, _ in seen["by_bpf"]} == {
        "MMAP", "MUNMAP", "MREMAP", "MPROTECT", "MADVISE", "PROCESS_MADVISE", "BRK"
    }  # fmt: skip
    assert seen["by_strace"] == seen["by_bpf"]
    assert seen["by_recording"] == seen["by_bpf"]
    # strace does not count process_madvise among trace=memory.
    assert seen["by_log"] == [call for call in seen["by_bpf"] if call[0] != EventKind.PROCESS_MADVISE]
    spaces = [space(one) for one in events.values()]
    assert all(one == spaces[0] for one in spaces)
    assert len(spaces[0][0]) > 20
