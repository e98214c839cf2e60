"""What is told of a fleet's processes: the same as before is the same object, so that it is not written again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from gomem.tracer.discovery.changes import Found
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.member import Member
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.view import TargetState, TargetView
from gomem.tracer.proc.clocks import TimeOfDay

SECOND = 1_000_000_000


def member(pid: int) -> Member:
    view = TargetView(pid, "server", TargetState.FOLLOWED, "", Workload(), None, 1000.0, looked=50.0, found=40.0)
    return Member(cast(Found, SimpleNamespace(pid=pid)), view, 0.0)


def test_only_what_has_changed_since_is_another_object() -> None:
    wall = [1060 * SECOND]
    today, roster = TimeOfDay(lambda: 60 * SECOND, lambda: wall[0]), Roster()
    first, second = member(7), member(9)
    roster.add(second)
    roster.add(first)
    before = roster.views(today)
    assert [(view.pid, view.looked_at) for view in before] == [(7, 1050.0), (9, 1050.0)]
    again = roster.views(today)
    assert again[0] is before[0]
    assert again[1] is before[1]
    second.view = replace(second.view, looks=1, looked=55.0)
    after = roster.views(today)
    assert after[0] is before[0]
    assert (after[1].looks, after[1].looked_at) == (1, 1055.0)
    wall[0] -= 3600 * SECOND
    today.look()
    assert [view.looked_at for view in roster.views(today)] == [1050.0 - 3600, 1055.0 - 3600]
    roster.remove(first)
    assert [view.pid for view in roster.views(today)] == [9]
