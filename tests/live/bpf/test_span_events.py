"""Span events of real programs: each span seen once, as what it is; and probes that go when they cost too much."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.probes.placement import CODE_LIMIT, ProbeSite, probe_site
from gomem.bpf.probes.uprobes import Backend
from gomem.bpf.source import BpfSource
from gomem.tracer.events.optional_roles import OptionalRole
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import SPAN_ROLES, EventBatch, EventKind
from gomem.tracer.model.span_events import SpanChurn
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.watch.span_probes import span_uprobes
from tests.support.bpf.span_rounds import SpanTable, program_of, rounds
from tests.support.command import started
from tests.support.processes import wait_until
from tests.support.toolchains import ALL_RELEASES

pytestmark = pytest.mark.bpf

PAGE = 8192
BUDGET = 1e-3  # of the target's time; as a rule it takes thirty times as much


class Watcher:
    """Gathers the events of a source."""

    def __init__(self, source: BpfSource) -> None:
        self.source = source
        self.batches: list[EventBatch] = []

    def poll(self) -> None:
        """Take what is there."""
        self.batches.append(self.source.poll(0))

    def events(self, *kinds: EventKind) -> EventBatch:
        """Return the events of some kinds."""
        events = np.concatenate(self.batches)
        return events[np.isin(events["kind"], kinds)]


@dataclass(frozen=True, slots=True)
class Seen:
    """Three rounds of a target: its spans and its own figures before and after, and all events in between."""

    before: SpanTable
    after: SpanTable
    grown: tuple[int, ...]  # HeapInuse, StackInuse, ...
    watcher: Watcher
    specs: list[UprobeSpec]
    past_stack_check: list[bool]


@pytest.fixture(scope="module", params=ALL_RELEASES)
def seen(request: pytest.FixtureRequest) -> Seen:
    with rounds(request.param) as target, program_of(target.pid) as program:
        specs = span_uprobes(program)
        before, first = target.spans(), target.figures
        watcher = Watcher(
            BpfSource(target.pid, governed=[GovernedUprobes(specs, budget=1e6)], optional=[OptionalRole.SPANS])
        )
        watcher.source.start()
        try:
            for _ in range(3):
                target.round(watcher.poll)
        finally:
            watcher.source.stop()
        watcher.poll()
        grown = tuple(now - then for now, then in zip(target.figures, first, strict=True))
        checks = [site_of(program, spec.symbol).past_stack_check for spec in specs]
        return Seen(before, target.spans(), grown, watcher, specs, checks)


def site_of(program: GoProgram, symbol: str) -> ProbeSite:
    exe, functions = program.executable, program.functions
    assert exe is not None
    assert functions is not None
    (function,) = functions.lookup(symbol)
    code = exe.read_up_to(function.entry, min(function.end - function.entry, CODE_LIMIT))
    return probe_site(code, function.entry)


def test_the_probes_sit_behind_the_stack_check_on_instructions_that_the_kernel_emulates(seen: Seen) -> None:
    assert {spec.kind for spec in seen.specs} == set(SPAN_ROLES)
    assert all(spec.emulated for spec in seen.specs)
    assert all(seen.past_stack_check)


def test_spans_before_and_span_events_make_the_spans_after(seen: Seen) -> None:
    events = seen.watcher.events(*SPAN_ROLES)
    assert set(events["kind"].tolist()) == set(SPAN_ROLES)
    made = Counter(seen.before)
    for kind, args in zip(events["kind"].tolist(), events["args"].tolist(), strict=True):
        sign = 1 if kind == EventKind.SPAN_ALLOC else -1
        what = args[2] if args[3] == 0 else "manual"
        made[what, "spans"] += sign
        made[what, "pages"] += sign * args[1] // PAGE
    assert +made == seen.after
    assert min(made.values()) >= 0


def test_every_hit_becomes_an_event(seen: Seen) -> None:
    assert seen.watcher.source.lost == 0
    hits = Counter({probe.role: probe.hits for probe in seen.watcher.source.probes()})
    for kind in SPAN_ROLES:
        assert hits[kind.name.lower()] == len(seen.watcher.events(kind)) > 100


def test_heap_and_stack_pages_grow_by_what_the_runtime_says_of_itself(seen: Seen) -> None:
    churn = SpanChurn()
    for batch in seen.watcher.batches:
        churn.feed(batch)
    section = churn.section(1 << 62, 1.0)
    assert section is not None
    grown = Counter[str]()
    for row in section.classes:
        grown[row.use] += (row.allocated_pages - row.freed_pages) * PAGE
    assert (grown["heap"], grown["stacks"]) == seen.grown[:2]


def test_the_end_of_a_span_finds_its_beginning_by_the_address(seen: Seen) -> None:
    living: dict[int, tuple[int, int]] = {}
    whole = 0
    for event in seen.watcher.events(*SPAN_ROLES):
        address, size, _, use = event["args"][:4].tolist()
        assert address % PAGE == 0
        if event["kind"] == EventKind.SPAN_FREE:
            if address in living:
                assert living.pop(address) == (size, use)
                whole += 1
        elif address:
            assert address not in living
            living[address] = (size, use)
    without_addresses = any(spec.symbol == "runtime.(*mheap).allocSpan" for spec in seen.specs)
    assert whole == 0 if without_addresses else whole > 50


@pytest.mark.parametrize("backend", ["multi", "perf", "copies"])
def test_probes_that_cost_too_much_are_taken_off_and_come_back(backend: Backend) -> None:
    with rounds("1.25.5", "-rounds", -1, "-goroutines", 400) as target, program_of(target.pid) as program:
        specs = span_uprobes(program)
        governed = GovernedUprobes(specs, budget=BUDGET)
        source = BpfSource(target.pid, uprobe_backend=backend, governed=[governed], optional=[OptionalRole.SPANS])
        watcher = Watcher(source)
        source.start()
        try:
            until(watcher, lambda: probed(program, target.pid))  # on a busy machine they may be off by now
            until(watcher, lambda: not governed.attached and not probed(program, target.pid))
            seen = sum(status.hits for status in governed.probes())
            time.sleep(0.1)
            assert sum(status.hits for status in governed.probes()) == seen > 0
            until(watcher, lambda: governed.attached)
            assert probed(program, target.pid)
        finally:
            source.stop()
        watcher.poll()
        assert not probed(program, target.pid)
        assert governed.failure == ""
    events = watcher.events(EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_OFF, *SPAN_ROLES)
    marks = events[np.isin(events["kind"], (EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_OFF))]
    assert marks["kind"].tolist()[:3] == [EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_OFF, EventKind.SPAN_PROBES_ON]
    assert marks["args"][0, 0] == BUDGET * 1e6
    assert marks["args"][1, 0] == 1  # by the budget
    off, on = marks["time"][1:3].tolist()
    pause = events[np.isin(events["kind"], SPAN_ROLES) & (events["time"] > off + 1_000_000) & (events["time"] < on)]
    # A CPU may have been interrupted between the program's question and its event.
    assert len(pause) <= (os.cpu_count() or 1)


def test_a_killed_tracer_leaves_no_probe_and_the_target_goes_on() -> None:
    with rounds("1.27.3") as target, program_of(target.pid) as program:
        with started("trace", "--pid", target.pid, "--duration", 100, "--with", "spans", "--budget", 100) as tracer:
            wait_until(lambda: probed(program, target.pid), "the attaching", 60)
            target.round(lambda: None)
            tracer.kill()
            tracer.wait()
        wait_until(lambda: not probed(program, target.pid), "the detaching", 60)
        target.round(lambda: None)
        assert target.process.poll() is None


def until(watcher: Watcher, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        watcher.poll()
        time.sleep(0.01)


def probed(program: GoProgram, pid: int) -> bool:
    """Return whether a breakpoint is at the place of one of the probes in the memory of the (non-PIE) process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for spec in span_uprobes(program):
            memory.seek(site_of(program, spec.symbol).address)
            found.append(memory.read(1) == b"\xcc")
    return any(found)
