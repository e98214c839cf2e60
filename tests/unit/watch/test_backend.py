from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted
from gomem.tracer.events.optional_roles import DESCRIPTIONS, OptionalRole
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.layout.layout import Source
from gomem.tracer.layout.tables import table_for
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.watch import backend as backend_module
from gomem.tracer.watch.backend import Backend, StartedBackend, TraceRequest, start_backend
from gomem.tracer.watch.from_exec import FromExec
from gomem.tracer.watch.probes import PlannedProbes, plan_probes
from gomem.tracer.watch.span_probes import governed_spans, layout_for_probes

NO_GO = GoProgram(None, None, None, None)
Start = Callable[..., StartedBackend]


def batch(*kinds: EventKind) -> EventBatch:
    made = np.zeros(len(kinds), no_events().dtype)
    made["kind"] = kinds
    return made


def kinds(events: EventBatch) -> list[int]:
    return cast(list[int], events["kind"].tolist())


def test_of_a_launched_program_all_is_seen_from_its_exec_on_but_not_the_exec() -> None:
    accept = FromExec()
    assert kinds(accept(batch(EventKind.MMAP, EventKind.BRK))) == []
    assert kinds(accept(no_events())) == []
    assert kinds(accept(batch(EventKind.MMAP, EventKind.EXEC, EventKind.MUNMAP, EventKind.BRK))) == [
        EventKind.MUNMAP,
        EventKind.BRK,
    ]
    # A second one is the program's own, and ends the watching.
    assert kinds(accept(batch(EventKind.MADVISE, EventKind.EXEC, EventKind.BRK))) == [
        EventKind.MADVISE,
        EventKind.EXEC,
        EventKind.BRK,
    ]


def test_an_exec_that_stands_alone_leaves_nothing() -> None:
    accept = FromExec()
    assert kinds(accept(batch(EventKind.EXEC))) == []
    assert kinds(accept(batch(EventKind.BRK))) == [EventKind.BRK]


def test_what_was_watched_for_by_the_exec_is_watched_for_from_it_on() -> None:
    accept = FromExec()
    assert kinds(accept(batch(EventKind.SPAN_PROBES_ON))) == []
    assert kinds(accept(batch(EventKind.MMAP))) == []
    events = batch(EventKind.MMAP, EventKind.EXEC, EventKind.SPAN_ALLOC)
    events["time"] = 5, 7, 9
    seen = accept(events)
    assert kinds(seen) == [EventKind.SPAN_PROBES_ON, EventKind.SPAN_ALLOC]
    assert seen["time"].tolist() == [7, 9]
    assert kinds(accept(batch(EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_OFF))) == [48, 49]


def test_of_each_kind_of_mark_the_last_counts() -> None:
    accept = FromExec()
    marks = [EventKind.USED_PROBES_ON, EventKind.SPAN_PROBES_ON, EventKind.SPAN_PROBES_ON]
    events = batch(*marks, EventKind.EXEC, EventKind.MMAP, EventKind.SPAN_PROBES_OFF)
    assert kinds(accept(events)) == [
        EventKind.SPAN_PROBES_ON,
        EventKind.USED_PROBES_ON,
        EventKind.MMAP,
        EventKind.SPAN_PROBES_OFF,
    ]


def test_span_probes_that_no_program_has_are_a_gap_and_no_failure() -> None:
    probes, (limit,) = governed_spans(NO_GO, 0.01)
    assert probes is None
    assert limit.what == DESCRIPTIONS[OptionalRole.SPANS]
    assert "Go 1.17" in limit.why


def works(backend: str) -> Start:
    return lambda *_, **__: StartedBackend(cast(Any, backend), "", None)


def fails(error: GomemError) -> Start:
    def start(*_: object, **__: object) -> StartedBackend:
        raise error

    return start


def start(backend: Backend, *, launched: bool, optional: frozenset[OptionalRole] = frozenset()) -> StartedBackend:
    request = TraceRequest(None, (), None, backend, False, optional=optional)
    return start_backend(request, 1, NO_GO, launched=launched)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Start, Start], None]:
    def have(bpf: Start, strace: Start) -> None:
        monkeypatch.setattr(backend_module, "_bpf", bpf)
        monkeypatch.setattr(backend_module, "_strace", strace)

    return have


BROKEN = BackendUnavailable("no bcc", "apt-get install python3-bpfcc")
REFUSED = NotPermitted("ptrace refused", "needs CAP_SYS_PTRACE")


def test_auto_takes_bpf_where_it_works(backends: Callable[[Start, Start], None]) -> None:
    backends(works("bpf"), works("strace"))
    assert start("auto", launched=False).name == "bpf"
    assert start("auto", launched=True).name == "bpf"


def test_auto_never_stops_a_running_process_with_strace(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), works("strace"))
    plan = start("auto", launched=False)
    assert (plan.name, plan.source) == ("procfs", None)
    (limit,) = plan.limits
    assert "no bcc" in limit.why
    assert limit.fix == f"{BROKEN.fix}; or use --backend strace, which stops the target at each of its system calls"
    assert start("auto", launched=True).name == "strace"


def test_auto_says_why_neither_worked(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    plan = start("auto", launched=True)
    assert plan.name == "procfs"
    assert "no bcc" in plan.reason
    assert "ptrace refused" in plan.reason


@pytest.mark.parametrize(("choice", "error"), [("bpf", BROKEN), ("strace", REFUSED)])
def test_a_backend_that_was_asked_for_and_does_not_work_is_an_error(
    backends: Callable[[Start, Start], None], choice: Backend, error: GomemError
) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    with pytest.raises(type(error)) as raised:
        start(choice, launched=True)
    assert raised.value is error


def test_a_role_that_was_asked_for_is_a_limit_where_bpf_does_not_work(
    backends: Callable[[Start, Start], None],
) -> None:
    backends(fails(BROKEN), works("strace"))
    doctor = "gomem doctor tells what BPF lacks here"
    for launched in (False, True):
        limits = start("auto", launched=launched, optional=frozenset((OptionalRole.RSS,))).limits
        assert [limit.fix for limit in limits if limit.what == DESCRIPTIONS[OptionalRole.RSS]] == [doctor]


def test_procfs_says_that_it_sees_no_events(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    plan = start("procfs", launched=False)
    assert (plan.name, plan.source, len(plan.limits)) == ("procfs", None, 1)


def test_what_is_no_go_program_gets_no_uprobes_and_no_complaint() -> None:
    assert plan_probes(NO_GO) == PlannedProbes()


@pytest.mark.parametrize(
    ("source", "confirmed", "certain"),
    [("table", True, True), ("table", False, False), ("nearest", False, False), ("dwarf", False, True)],
)
def test_probes_read_structs_only_by_a_layout_that_is_certain(source: Source, confirmed: bool, certain: bool) -> None:
    table = table_for("go1.27.3", "amd64")
    assert table is not None
    layout = copy(table)
    layout.source, layout.confirmed = source, confirmed
    assert (layout_for_probes(replace(NO_GO, layout=layout)) is layout) is certain
