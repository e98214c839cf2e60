"""Processes that never answer, and are many, come after those that do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from gomem.tracer.discovery.selection import Selection
from gomem.tracer.fleet.member import Member, Visitor
from gomem.tracer.process.guardian import Guardian
from tests.support.builds import build
from tests.support.fleets import of, watching
from tests.support.liar import liar, silenced, trap
from tests.support.parked import parked

SILENT = 6


@contextmanager
def blocked(count: int) -> Iterator[list[int]]:
    """Run so many processes that hold their own mmap_lock until the block ends; gives their pids."""
    with trap(build("liar", "1.25.5")) as (server, path), ExitStack() as stack:
        liars = [stack.enter_context(liar()) for _ in range(count)]
        traps = [one.told("file", path, 1 << 20) for one in liars]
        with silenced(server):
            for one, where in zip(liars, traps, strict=True):
                one.block(where)
            yield [one.pid for one in liars]


def test_newcomers_that_do_not_answer_take_no_turn_of_who_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[int] = []
    visit = Visitor.visit

    def noted(self: Visitor, member: Member) -> None:
        visits.append(member.found.pid)
        visit(self, member)

    guardian = Guardian()
    monkeypatch.setattr("gomem.tracer.process.guardian._appointed", [guardian])
    monkeypatch.setattr("gomem.tracer.fleet.schedule.LOOK_SHARE", 1.0)
    monkeypatch.setattr(Visitor, "visit", noted)
    try:
        with parked(build("parked", "1.25.5")) as innocent, blocked(SILENT) as silent:
            pids = frozenset((innocent.pid, *silent))
            with watching(Selection(pids=pids), interval=0.05) as watched:
                view = watched.until(lambda _: set(visits) == pids, "each had a turn")
                one = of(view, innocent.pid)
                assert one is not None
                assert not watched.complaints
    finally:
        guardian.close()
    of_silent = [turn for turn, pid in enumerate(visits) if pid != innocent.pid]
    between = [later - earlier - 1 for earlier, later in pairwise(of_silent)]
    assert all(between), visits  # a look at the innocent, at least, between two of these
