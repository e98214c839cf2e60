"""When to look, and when to scan."""

from __future__ import annotations

import time

import pytest

from gomem.tracer.discovery import timetable
from gomem.tracer.discovery.timetable import Timetable


def test_a_process_is_due_once_when_its_time_has_come() -> None:
    table = Timetable(5.0)
    now = time.monotonic()
    table.later(1, 100.0)
    table.at_once(2, now)
    assert table.due(now) == [2]
    assert table.due(now) == []
    assert (1 in table, 2 in table, len(table)) == (True, False, True)
    assert table.due(now + 101.0) == [1]


def test_scans_keep_their_distance_however_often_one_is_wanted() -> None:
    table = Timetable(5.0)
    now = time.monotonic()
    table.scan_at_once(now)
    assert table.scan_is_due(now, 60.0)
    assert not table.scan_is_due(now + 59.0, 60.0)
    table.scan_soon()
    table.scan_soon()
    assert not table.scan_is_due(now + 4.9, 60.0)
    assert table.next == now + 5.0
    assert table.scan_is_due(now + 5.0, 60.0)


def test_what_there_is_no_room_for_is_left_to_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "MOST_PENDING", 2)
    table = Timetable(5.0)
    now = time.monotonic()
    table.scan_at_once(now)
    assert table.scan_is_due(now, 60.0)
    for pid in (1, 2, 3):
        table.later(pid, 1000.0)
    assert len(table) == 2
    assert table.scan_is_due(now + 5.0, 60.0)
