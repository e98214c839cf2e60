"""Probes that must not cost more than a share of the time: when they go, and when they come back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf import governor
from gomem.bpf.governor import GovernedUprobes, Governor
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobe_program import UprobeProgram
from gomem.bpf.program import Counter
from gomem.tracer.errors import BackendUnavailable, NoAnswer
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.process.guardian import Hold

HIT = 1e-6


def test_what_stays_within_the_budget_stays_on() -> None:
    watch = Governor(0.01, HIT)
    assert all(watch.decide(tick / 10, tick * 999) for tick in range(1000))


def test_what_exceeds_it_goes_and_comes_back_when_the_account_is_full() -> None:
    watch = Governor(0.01, HIT, switch_seconds=0.0)
    hits, states = 0, []
    for tick in range(400):
        on = watch.decide(tick / 10, hits)
        states.append(on)
        hits += 5000 if on else 0  # 5 % while on
    changes = [tick for tick in range(1, 400) if states[tick] != states[tick - 1]]
    assert len(changes) > 10
    # 20 ms of budget saved up, spent at 5 ms - 1 ms each tick; then 2 s and what was overdrawn, to save them anew.
    assert changes[0] == 6
    assert 20 <= changes[1] - changes[0] <= 26


@given(
    st.lists(st.tuples(st.floats(0.001, 2.0), st.integers(0, 200_000)), max_size=200),
    st.floats(1e-4, 0.5),
)
def test_hits_cost_no_more_than_the_budget_on_average(ticks: list[tuple[float, int]], share: float) -> None:
    """But for what is saved up, and the hits of the one look that came too late."""
    watch = Governor(share, HIT, switch_seconds=0.0)
    now, hits, on = 0.0, 0, watch.decide(0.0, 0)
    worst_tick = 0.0
    for seconds, some in ticks:
        now += seconds
        if on:
            hits += some
            worst_tick = max(worst_tick, some * HIT)
        on = watch.decide(now, hits)
        assert hits * HIT <= share * (now + 2.0) + worst_tick + 1e-9


def test_what_was_overdrawn_is_waited_for() -> None:
    watch = Governor(0.01, HIT, switch_seconds=0.0)
    assert watch.decide(0.0, 0)
    assert not watch.decide(0.1, 1_000_000)  # a second of the target's time
    assert not watch.decide(99.0, 1_000_000)
    assert watch.decide(101.0, 1_000_000)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    watch = Governor(0.01, HIT, switch_seconds=0.0)
    watch.decide(100.0, 0)
    assert not watch.decide(0.0, 20_001)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        Governor(share, HIT)


class Programs:
    """What GovernedUprobes needs of loaded programs."""

    def __init__(self) -> None:
        self.hits = [0, 0]
        self.on = [False, False]
        self.refusal: BackendUnavailable | None = None
        self.loaded: list[str] = []

    def uprobe(self) -> UprobeProgram:
        self.loaded.append("uprobe")
        return UprobeProgram("multi")

    def span_uprobe(self) -> UprobeProgram:
        if self.refusal is not None:
            raise self.refusal
        return UprobeProgram("multi")

    def set_operands(self, index: int, packed: bytes) -> None:
        self.on[index - 7] = bool(packed[0])

    def counter(self, index: int) -> int:
        return self.hits[index - 7 - Counter.HITS]


class Kernel:
    """Attaches to nothing: the file descriptors it gives are of /dev/null."""

    def __init__(self) -> None:
        self.attached: list[int] = []
        self.cookies: list[int] = []
        self.refused: list[SkippedUprobe] = []

    def attach(
        self, program: UprobeProgram, specs: Sequence[UprobeSpec], pid: int, cookies: dict[UprobeSpec, int]
    ) -> tuple[list[int], list[SkippedUprobe]]:
        self.attached = [os.open("/dev/null", os.O_RDONLY)]
        self.cookies = [cookies[spec] for spec in specs]
        return list(self.attached), self.refused

    @property
    def holds(self) -> bool:
        """Whether what was attached last is open still."""
        return all(os.path.exists(f"/proc/self/fd/{fd}") for fd in self.attached)


SPECS = [
    UprobeSpec("span_alloc", EventKind.SPAN_ALLOC, "runtime.(*mheap).initSpan", "f", 1, operands=("rsi",)),
    UprobeSpec("span_free", EventKind.SPAN_FREE, "runtime.(*mheap).freeSpanLocked", "f", 2, operands=("rbx",)),
]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(uprobes, "attach", made.attach)
    return made


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def clock() -> list[int]:
    return [1_000_000_000]


@pytest.fixture
def probes(kernel: Kernel, programs: Programs, clock: list[int]) -> Iterator[GovernedUprobes]:
    governed = GovernedUprobes(SPECS, 0.01, clock_ns=lambda: clock[0], cpu_seconds=lambda _: clock[0] / 1e9)
    yield governed
    governed.stop()


class Here:
    """Holds descriptors in this process; the last one last."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.silent = False
        self.slow = False  # what is released is not closed yet

    def ensure_all_answer(self, pid: int) -> None:
        if self.silent:
            raise NoAnswer(f"process {pid} does not answer")

    def hold(self, fds: Sequence[int], pid: int, *, dear: bool = False) -> Hold:
        assert dear
        held = list(fds)

        def close() -> None:
            while held:
                os.close(held.pop())
            if not self.slow:
                hold.closed()

        hold = Hold(close)
        self.holds.append(hold)
        return self.holds[-1]


def start(probes: GovernedUprobes, programs: Programs) -> Here:
    """Start them; gives what holds them."""
    here = Here()
    probes.start(programs, 1, 7, here)
    return here


def told(marks: EventBatch) -> list[tuple[int, int, int]]:
    return [(int(mark["kind"]), int(mark["time"]), int(mark["args"][0])) for mark in marks]


def test_they_are_told_on_only_when_all_are_attached(
    probes: GovernedUprobes, kernel: Kernel, programs: Programs
) -> None:
    start(probes, programs)
    assert probes.attached
    assert kernel.holds
    assert programs.on == [True, True]
    assert [cookie & 255 for cookie in kernel.cookies] == [7, 8]
    assert told(probes.tick()) == [(EventKind.SPAN_PROBES_ON, 1_000_000_000, 10_000)]
    assert not len(probes.tick())


def test_they_are_closed_when_the_budget_is_used_up_and_opened_again_later(
    probes: GovernedUprobes, kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    start(probes, programs)
    probes.tick()
    programs.hits = [100_000, 100_000]
    clock[0] += 100_000_000
    assert told(probes.tick()) == [(EventKind.SPAN_PROBES_OFF, clock[0], 1)]
    assert not probes.attached
    assert not kernel.holds
    assert programs.on == [False, False]
    clock[0] += 3_600_000_000_000
    assert told(probes.tick()) == [(EventKind.SPAN_PROBES_ON, clock[0], 10_000)]
    assert kernel.holds
    assert [probe.hits for probe in probes.probes()] == [100_000, 100_000]
    assert told(probes.stop()) == [(EventKind.SPAN_PROBES_OFF, clock[0], 0)]
    assert not kernel.holds
    assert [probe.hits for probe in probes.probes()] == [100_000, 100_000]
    assert not len(probes.stop())


def test_what_was_taken_off_while_we_were_stopped_was_off_from_then_on_and_comes_back(
    probes: GovernedUprobes, kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    holds = start(probes, programs).holds
    probes.tick()
    holds[0].let_go_at = clock[0] + 1_000
    assert not probes.attached
    clock[0] += 30_000_000_000
    assert told(probes.tick()) == [
        (EventKind.SPAN_PROBES_OFF, 1_000_001_000, 0), (EventKind.SPAN_PROBES_ON, clock[0], 10_000)
    ]  # fmt: skip
    assert probes.attached
    assert programs.on == [True, True]
    assert len(holds) == 2


def test_nothing_is_put_on_while_a_process_would_make_the_kernel_wait(
    probes: GovernedUprobes, programs: Programs, clock: list[int]
) -> None:
    here = Here()
    here.silent = True
    probes.start(programs, 1, 7, here)
    assert not probes.attached
    assert probes.failure == ""
    here.silent = False
    assert [kind for kind, _, _ in told(probes.tick())] == [EventKind.SPAN_PROBES_ON]


def test_one_that_the_kernel_refuses_means_none(probes: GovernedUprobes, kernel: Kernel, programs: Programs) -> None:
    kernel.refused = [SkippedUprobe(SPECS[1], "Invalid argument")]
    start(probes, programs)
    assert probes.failure == "runtime.(*mheap).freeSpanLocked: Invalid argument"
    assert not probes.attached
    assert not kernel.holds
    assert not len(probes.tick())


def test_a_program_that_the_kernel_refuses_is_told_and_not_tried_again(
    probes: GovernedUprobes, programs: Programs
) -> None:
    programs.refusal = BackendUnavailable("the verifier says no", "")
    start(probes, programs)
    assert probes.failure == "the verifier says no"
    assert not probes.were_on
    assert not len(probes.tick())


@pytest.fixture
def used() -> UprobeSpec:
    return UprobeSpec("used", EventKind.USED, "runtime.sysUsed", "f", 3, args=("rax", "rbx", "rcx"))


def test_those_of_a_rare_role_have_its_program_and_marks_of_their_own(
    used: UprobeSpec, kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    probes = GovernedUprobes([used], 0.005, governor.FOR_USED, clock_ns=lambda: clock[0], cpu_seconds=lambda _: 1.0)
    start(probes, programs)
    assert programs.loaded == ["uprobe"]
    assert programs.on == [False, False], "nobody else's operands were touched"
    assert kernel.cookies == [uprobes.cookie(used, 7)]
    programs.hits[0] = 100_000
    clock[0] += 100_000_000
    assert told(probes.tick()) == [
        (EventKind.USED_PROBES_ON, 1_000_000_000, 5_000), (EventKind.USED_PROBES_OFF, clock[0], 1)
    ]  # fmt: skip
    assert not probes.attached


def test_the_budget_is_of_the_cpu_time_of_what_uses_several_cpus_else_of_the_clock(
    used: UprobeSpec, kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    cpu = [10.0]
    probes = GovernedUprobes([used], 0.005, governor.FOR_USED, clock_ns=lambda: clock[0], cpu_seconds=lambda _: cpu[0])
    start(probes, programs)
    programs.hits[0] = 100_000
    probes.tick()
    assert not probes.attached
    cpu[0] += 60.0
    probes.tick()
    assert not probes.attached, "0.42 s were used, 0.04 s were there: that takes 76 s and 8 more"
    clock[0] += 80_000_000_000
    probes.tick()
    assert not probes.attached
    cpu[0] += 30.0
    probes.tick()
    assert probes.attached
    probes.stop()


def test_they_come_back_only_when_the_kernel_has_taken_them_off(
    kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    probes = GovernedUprobes(SPECS, 0.01, clock_ns=lambda: clock[0], cpu_seconds=lambda _: 1.0)
    here = start(probes, programs)
    here.slow = True
    programs.hits[0] = 1_000_000
    probes.tick()
    assert not probes.attached
    clock[0] += 3_600_000_000_000
    probes.tick()
    assert not probes.attached
    here.holds[0].closed()
    probes.tick()
    assert probes.attached
    here.slow = False
    probes.stop()


def test_what_the_kernel_refuses_is_a_limit_of_the_report_once(
    used: UprobeSpec, kernel: Kernel, programs: Programs, clock: list[int]
) -> None:
    probes = GovernedUprobes([used], 0.005, governor.FOR_USED, clock_ns=lambda: clock[0], cpu_seconds=lambda _: 1.0)
    start(probes, programs)
    programs.hits[0] = 100_000
    probes.tick()
    assert probes.limits() == []
    kernel.refused = [SkippedUprobe(used, "Invalid argument")]
    clock[0] += 3_600_000_000_000
    probes.tick()
    [limit] = probes.limits()
    assert (limit.what, limit.why) == (
        "all events of role used", "its probes could not be put on again: runtime.sysUsed: Invalid argument"
    )  # fmt: skip
    spans, at_once = GovernedUprobes(SPECS), GovernedUprobes([used], 0.005, governor.FOR_USED)
    kernel.refused = [SkippedUprobe(SPECS[1], "Invalid argument")]
    for refused in (spans, at_once):
        start(refused, programs)
    assert "could not be put on: runtime.(*mheap).freeSpanLocked" in spans.limits()[0].why
    by_symbol = [skipped.limit() for skipped in at_once.refused]
    assert at_once.limits() == by_symbol != [], "told by its symbol, as those of all rare roles"


def test_a_target_that_is_gone_changes_nothing(used: UprobeSpec, kernel: Kernel, programs: Programs) -> None:
    seconds: list[float | None] = [None, 1.0]
    probes = GovernedUprobes([used], 0.005, governor.FOR_USED, cpu_seconds=lambda _: seconds.pop())
    start(probes, programs)
    probes.tick()
    programs.hits[0] = 100_000
    seconds.append(None)
    assert not len(probes.tick())
    assert probes.attached
    probes.stop()


def test_the_cpu_time_of_a_process_is_what_the_kernel_says() -> None:
    before, told_by_kernel, after = time.process_time(), governor.process_cpu_seconds(os.getpid()), time.process_time()
    assert told_by_kernel is not None
    assert before <= told_by_kernel <= after
    with subprocess.Popen(["true"]) as child:
        pass
    assert governor.process_cpu_seconds(child.pid) is None


def test_before_its_start_it_has_no_hits_to_tell(probes: GovernedUprobes) -> None:
    assert probes.probes() == []
    assert governor.DEFAULT_BUDGET == 0.01
