from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tracer import session
from tracer.errors import BackendUnavailable, GomemError, NotPermitted
from tracer.events import EventBatch, Kind, no_events
from tracer.layout.layout import Source
from tracer.layout.tables import table_for
from tracer.optional_roles import DESCRIPTIONS, OptionalRole
from tracer.program import GoProgram
from tracer.report import Limit
from tracer.session import FromExec, Plan, start_source, uprobes_for
from tracer.sources.launch import Launched
from tracer.span_probes import governed_spans, layout_for_probes

NO_GO = GoProgram(None, None, None, None)
LAUNCHED = cast(Launched, SimpleNamespace(pid=1))
Start = Callable[..., Plan]


def batch(*kinds: Kind) -> EventBatch:
    made = np.zeros(len(kinds), no_events().dtype)
    made["kind"] = kinds
    return made


def kinds(events: EventBatch) -> list[int]:
    return cast(list[int], events["kind"].tolist())


def test_of_a_launched_program_all_is_seen_from_its_exec_on_but_not_the_exec() -> None:
    accept = FromExec()
    assert kinds(accept(batch(Kind.MMAP, Kind.BRK))) == []
    assert kinds(accept(no_events())) == []
    assert kinds(accept(batch(Kind.MMAP, Kind.EXEC, Kind.MUNMAP, Kind.BRK))) == [Kind.MUNMAP, Kind.BRK]
    # A second one is the program's own, and ends the watching.
    assert kinds(accept(batch(Kind.MADVISE, Kind.EXEC, Kind.BRK))) == [Kind.MADVISE, Kind.EXEC, Kind.BRK]


def test_an_exec_that_stands_alone_leaves_nothing() -> None:
    accept = FromExec()
    assert kinds(accept(batch(Kind.EXEC))) == []
    assert kinds(accept(batch(Kind.BRK))) == [Kind.BRK]


def test_what_was_watched_for_by_the_exec_is_watched_for_from_it_on() -> None:
    accept = FromExec()
    assert kinds(accept(batch(Kind.SPAN_PROBES_ON))) == []
    assert kinds(accept(batch(Kind.MMAP))) == []
    events = batch(Kind.MMAP, Kind.EXEC, Kind.SPAN_ALLOC)
    events["time"] = 5, 7, 9
    seen = accept(events)
    assert kinds(seen) == [Kind.SPAN_PROBES_ON, Kind.SPAN_ALLOC]
    assert seen["time"].tolist() == [7, 9]
    assert kinds(accept(batch(Kind.SPAN_PROBES_ON, Kind.SPAN_PROBES_OFF))) == [48, 49]


def test_of_each_kind_of_mark_the_last_counts() -> None:
    accept = FromExec()
    marks = [Kind.USED_PROBES_ON, Kind.SPAN_PROBES_ON, Kind.SPAN_PROBES_ON]
    events = batch(*marks, Kind.EXEC, Kind.MMAP, Kind.SPAN_PROBES_OFF)
    assert kinds(accept(events)) == [Kind.SPAN_PROBES_ON, Kind.USED_PROBES_ON, Kind.MMAP, Kind.SPAN_PROBES_OFF]


def test_span_probes_that_no_program_has_are_a_gap_and_no_failure() -> None:
    limits: list[Limit] = []
    assert governed_spans(NO_GO, 0.01, limits) is None
    (limit,) = limits
    assert limit.what == DESCRIPTIONS[OptionalRole.SPANS]
    assert "Go 1.17" in limit.why


def works(backend: str) -> Start:
    return lambda *_: Plan(cast(session.Backend, backend), "", None)


def fails(error: GomemError) -> Start:
    def start(*_: object) -> Plan:
        raise error

    return start


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Start, Start], None]:
    def have(bpf: Start, strace: Start) -> None:
        monkeypatch.setattr(session, "_bpf", bpf)
        monkeypatch.setattr(session, "_strace", strace)

    return have


BROKEN = BackendUnavailable("no bcc", "apt-get install python3-bpfcc")
REFUSED = NotPermitted("ptrace refused", "needs CAP_SYS_PTRACE")


def test_auto_takes_bpf_where_it_works(backends: Callable[[Start, Start], None]) -> None:
    backends(works("bpf"), works("strace"))
    assert start_source("auto", 1, NO_GO, None).backend == "bpf"
    assert start_source("auto", 1, NO_GO, LAUNCHED).backend == "bpf"


def test_auto_never_stops_a_running_process_with_strace(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), works("strace"))
    plan = start_source("auto", 1, NO_GO, None)
    assert (plan.backend, plan.source) == ("procfs", None)
    (limit,) = plan.limits
    assert "no bcc" in limit.why
    assert limit.fix == BROKEN.fix
    assert start_source("auto", 1, NO_GO, LAUNCHED).backend == "strace"


def test_auto_says_why_neither_worked(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    plan = start_source("auto", 1, NO_GO, LAUNCHED)
    assert plan.backend == "procfs"
    assert "no bcc" in plan.reason
    assert "ptrace refused" in plan.reason


@pytest.mark.parametrize(("choice", "error"), [("bpf", BROKEN), ("strace", REFUSED)])
def test_a_backend_that_was_asked_for_and_does_not_work_is_an_error(
    backends: Callable[[Start, Start], None], choice: session.Choice, error: GomemError
) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    with pytest.raises(type(error)) as raised:
        start_source(choice, 1, NO_GO, LAUNCHED)
    assert raised.value is error


def test_a_role_that_was_asked_for_is_a_limit_where_bpf_does_not_work(
    backends: Callable[[Start, Start], None],
) -> None:
    backends(fails(BROKEN), works("strace"))
    for launched in (None, LAUNCHED):
        limits = start_source("auto", 1, NO_GO, launched, frozenset((OptionalRole.RSS,))).limits
        assert [limit.fix for limit in limits if limit.what == DESCRIPTIONS[OptionalRole.RSS]] == ["use --backend bpf"]


def test_procfs_says_that_it_sees_no_events(backends: Callable[[Start, Start], None]) -> None:
    backends(fails(BROKEN), fails(REFUSED))
    plan = start_source("procfs", 1, NO_GO, None)
    assert (plan.backend, plan.source, len(plan.limits)) == ("procfs", None, 1)


def test_what_is_no_go_program_gets_no_uprobes_and_no_complaint() -> None:
    limits: list[object] = []
    assert uprobes_for(NO_GO, cast(list, limits)) == []  # type: ignore[type-arg]
    assert limits == []


@pytest.mark.parametrize(
    ("source", "confirmed", "certain"),
    [("table", True, True), ("table", False, False), ("nearest", False, False), ("dwarf", False, True)],
)
def test_probes_read_structs_only_by_a_layout_that_is_certain(
    source: Source, confirmed: bool, certain: bool
) -> None:
    table = table_for("go1.27.3", "amd64")
    assert table is not None
    layout = copy(table)
    layout.source, layout.confirmed = source, confirmed
    assert (layout_for_probes(replace(NO_GO, layout=layout)) is layout) is certain
