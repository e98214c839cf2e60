"""The looks of a recording, to be shown: up to the moment asked for, those that are intact, and not too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.replay.file import replay_file
from gomem.tracer.replay.seen import Replayed
from gomem.tracer.report import Report
from gomem.tracer.report.memory_map import Picture
from gomem.tracer.watch.album import MOST_MAPS
from tests.support import looks
from tests.support.recordings import OVERHEAD, SECOND, START, beginning, ending
from tests.support.samples.maps import with_residency


def recording(path: Path, *pages: int) -> Path:
    """A recording with a look each second, of so many OS pages in RAM."""
    recorder = Recorder(str(path), look_seconds=0.0)
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    for at, count in enumerate(pages):
        look = with_residency(looks.look(at=START + at * SECOND), [(0, count, 1)])
        recorder.look(look, ModelInput.of(look), START + at * SECOND)
    recorder.end(ending(float(len(pages))))
    recorder.close()
    return path


def seen(path: Path, at: str | None = None) -> tuple[Report, Picture]:
    replayed = Replayed()
    return replay_file(str(path), at, seen=replayed), replayed.picture()


def resident(picture: Picture) -> list[tuple[float, int]]:
    return [(one.seconds, int(one.map.arenas.resident.sum()) // looks.OS_PAGE) for one in picture.moments]


def test_every_look_is_a_moment_and_the_last_is_the_reports(tmp_path: Path) -> None:
    report, picture = seen(recording(tmp_path / "r", 3, 9, 5))
    assert resident(picture) == [(0.0, 3), (1.0, 9), (2.0, 5)]
    assert report.resident is not None
    assert sum(held.resident for held in picture.holders) == report.resident.total == 5 * looks.OS_PAGE


@pytest.mark.parametrize(("at", "wanted"), [("1", [(0.0, 3), (1.0, 9)]), ("0", [(0.0, 3)])])
def test_nothing_after_the_moment_is_shown(tmp_path: Path, at: str, wanted: list[tuple[float, int]]) -> None:
    _, picture = seen(recording(tmp_path / "r", 3, 9, 5), at)
    assert resident(picture) == wanted


def test_of_very_many_looks_some_are_decoded_and_few_are_kept(tmp_path: Path) -> None:
    report, picture = seen(recording(tmp_path / "r", *range(1, 61)))
    found = resident(picture)
    assert len(found) == MOST_MAPS
    assert (found[0], found[-1]) == ((0.0, 1), (59.0, 60))
    assert len(picture.course) <= 2 * MOST_MAPS
    assert report.resident is not None
    assert report.resident.total == 60 * looks.OS_PAGE


def test_a_log_of_strace_has_no_map(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("4711  1772366400.000001 brk(NULL) = 0x555555560000 <0.000001>\n" * 3)
    _, picture = seen(log)
    assert picture.moments == ()
