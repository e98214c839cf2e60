"""The model's mappings against /proc/PID/maps of a program that changes them at random (tests/targets/mapper)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.source import BpfSource
from gomem.tracer.errors import TargetGone
from gomem.tracer.events.record import EventBatch, no_events
from gomem.tracer.kernel.maps import MappingsRead, read_mappings
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.model_input import Cover, ModelInput, mapping_values
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.process.target import Target
from tests.support.bpf.tracing import tracing
from tests.support.builds import TARGETS
from tests.support.cache import cache_dir, made_once
from tests.support.processes import running, without_capabilities
from tests.support.requirements import program

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

BURSTS = 8


@pytest.fixture(scope="module")
def mapper() -> Path:
    """Return tests/targets/mapper, compiled."""
    compiler, source = program("gcc", "gcc"), TARGETS / "mapper" / "mapper.c"
    key = f"{source.stat().st_mtime_ns:x}"

    def make(directory: Path) -> None:
        command = [compiler, "-O1", "-Wall", "-Werror", "-pthread", "-o", str(directory / "mapper"), str(source)]
        subprocess.run(command, check=True)

    return made_once(cache_dir() / "builds" / f"mapper-{key}", make) / "mapper"


class Mapped:
    """A running mapper, its events, and what is mapped in it."""

    def __init__(self, process: subprocess.Popen[bytes], source: BpfSource, target: Target) -> None:
        self.process, self.source, self.target = process, source, target

    def burst(self) -> EventBatch:
        """Let it make its calls; return the events of all that has happened since the last burst."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"done\n"
        # All calls have returned; their events are in the ring buffer.
        batches = [no_events(), self.source.poll(0.05)]
        while batches[-1].size:
            batches.append(self.source.poll(0.05))
        return np.concatenate(batches)

    def model_input(self) -> ModelInput:
        """Look at its mappings."""
        read: MappingsRead = read_mappings(self.target)
        mappings = read.mappings
        ends = [end for end, name in zip(mappings.end.tolist(), mappings.name, strict=True) if name == "[heap]"]
        cover = Cover(mappings.start, mappings.end, mapping_values(mappings))
        return ModelInput(read.read_at[0], *read.read_at, cover, max(ends, default=None), None)


@contextmanager
def mapping(command: Sequence[object], ring_bytes: int = 8 << 20) -> Iterator[Mapped]:
    with running(*command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with tracing(process.pid, ring_bytes=ring_bytes) as source, Target.open(process.pid) as target:
            yield Mapped(process, source, target)


def model_of(look: ModelInput) -> AddressSpaceModel:
    """Return a model that knows what a look showed, and is compared with none after it."""
    model, seen = AddressSpaceModel.empty(), look.mappings
    pieces = zip(seen.start.tolist(), seen.end.tolist(), seen.value.tolist(), strict=True)
    model.mappings.reset(list(pieces), look.heap_end)
    return model


def following() -> Reconciler:
    activity = Activity(lambda address: None)
    return Reconciler(activity, AddressSpaceModel(callers=activity.callers), follows_states=False)


CASES = {
    "one thread": ("11", "300", "1"),
    "one thread, too little address space": ("12", "300", "1", "3000000"),
    "four threads": ("13", "200", "4"),
    "eight threads, too little address space": ("14", "200", "8", "60000000"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_has_what_the_kernel_has_after_every_burst(case: str, mapper: Path) -> None:
    failed = 0
    with mapping((mapper, *CASES[case])) as mapped:
        first = mapped.model_input()
        from_look = model_of(first)
        compared, nothing = following(), following()
        compared.look(mapped.model_input())
        compared.feed(no_events(), time.monotonic_ns() + 10**9)
        for _ in range(BURSTS):
            events = mapped.burst()
            failed += int(np.count_nonzero(events["result"] < 0))
            from_look.apply(events[events["time"] >= first.began])
            for one in (compared, nothing):
                one.feed(events, time.monotonic_ns(), mapped.source.lost)
                one.look(mapped.model_input())
                one.flush()
            doubtful = bool(from_look.mappings.unsure)
            seen = mapped.model_input()
            assert doubtful or from_look.virtual().total == seen.mappings.end.sum() - seen.mappings.start.sum()
        for one in (compared, nothing):
            assert one.found.looks >= BURSTS
            assert not one.suspicious, one.found.examples
            assert one.found.drift == 0, one.found.examples
        assert compared.model.virtual().total == nothing.model.virtual().total
    assert failed > BURSTS, "too few calls failed"


def test_maps_that_fail_for_locked_memory_change_nothing(mapper: Path) -> None:
    program("setpriv", "util-linux")
    with mapping((*without_capabilities(), mapper, "21", "300", "1", "0", str(2 << 20))) as mapped:
        one = following()
        one.look(mapped.model_input())
        one.flush()
        refused = 0
        for _ in range(BURSTS):
            events = mapped.burst()
            refused += int(np.count_nonzero(events["result"] == -11))
            one.feed(events, time.monotonic_ns(), mapped.source.lost)
            one.look(mapped.model_input())
            one.flush()
        assert refused > 0
        assert (one.found.drift, one.suspicious) == (0, False), one.found.examples


def test_after_lost_events_the_model_goes_on_from_the_next_look(mapper: Path) -> None:
    with mapping((mapper, "31", "2000", "1"), ring_bytes=1 << 16) as mapped:
        one = following()
        one.look(mapped.model_input())
        one.flush()
        assert mapped.process.stdin is not None
        assert mapped.process.stdout is not None
        mapped.process.stdin.write(b"\n")
        mapped.process.stdin.flush()
        assert mapped.process.stdout.readline() == b"done\n"  # nobody reads the ring meanwhile
        one.feed(mapped.source.poll(0.1), time.monotonic_ns(), mapped.source.lost)
        assert mapped.source.lost > 0
        one.look(mapped.model_input())
        one.flush()
        assert one.found.resyncs == 1
        assert one.found.drift == one.found.after_loss > 0
        for _ in range(2):
            one.look(mapped.model_input())
            one.flush()
        assert one.found.drift == one.found.after_loss
        assert (one.found.resyncs, one.suspicious) == (1, False)
        assert one.model.virtual().total == int(
            np.sum(mapped.model_input().mappings.end - mapped.model_input().mappings.start)
        )


def test_a_target_that_ends_leaves_the_model_as_it_was(mapper: Path) -> None:
    with mapping((mapper, "41", "100", "1")) as mapped:
        one = following()
        one.look(mapped.model_input())
        one.flush()
        total = one.model.virtual().total
        mapped.process.kill()
        mapped.process.wait()
        with pytest.raises(TargetGone):
            mapped.model_input()
        one.feed(mapped.source.poll(0.2), time.monotonic_ns(), mapped.source.lost)
        one.flush()
        assert one.model.virtual().total == total
