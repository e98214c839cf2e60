"""`gomem profile`, as a user types it; what it writes is read by go tool pprof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import gomem
from tests.support.heapprofile import Records, profiled, records_of
from tests.support.pprof import top
from tests.support.processes import running, sleeping


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("heapprofile", "1.27.3", stripped=True)


def test_the_file_is_what_the_process_would_have_written(binary: Path, tmp_path: Path) -> None:
    ours = tmp_path / "heap.pb.gz"
    with profiled(binary, "-rate", 512) as process:
        done = gomem("profile", process.pid, "-o", ours)
        assert (done.status, done.stdout, done.stderr) == (0, "", "")
        own = process.writes(tmp_path)
    assert records_of(ours, tmp_path).with_values() == records_of(own, tmp_path).with_values()
    for sample_type, unit in (("inuse_space", "B"), ("alloc_objects", "")):
        rows = top(str(ours), sample_type=sample_type, unit=unit)
        assert rows == top(str(own), sample_type=sample_type, unit=unit)
        assert len(rows) > 10


def test_without_a_file_it_prints_a_table_or_stacks(binary: Path) -> None:
    with profiled(binary, "-rate", 1) as process:
        table = gomem("profile", "--pid", process.pid, "--top", 5, "--sample-type", "alloc_space")
        folded = gomem("profile", process.pid, "--format", "folded")
    assert (table.status, folded.status) == (0, 0)
    assert "main.dropped" in table.stdout
    assert any(line.startswith("main.main;main.depths;main.deep;main.deep") for line in folded.stdout.splitlines())


def test_what_is_allocated_since_the_last_collection_is_in_the_active_cycles(binary: Path, tmp_path: Path) -> None:
    def allocated(*options: str) -> Records:
        path = tmp_path / "heap.pb.gz"
        assert gomem("profile", process.pid, "-o", path, *options).status == 0
        return records_of(path, tmp_path)

    with profiled(binary, "-rate", 1) as process:
        process.obey("allocate 700")
        assert not any(allocated().values_of("main.allocate", 2048))
        assert allocated("--cycle", "active").values_of("main.allocate", 2048)[0] == 700


def test_a_program_without_a_profile_is_told_in_one_sentence_and_no_file_is_touched(tmp_path: Path) -> None:
    kept = tmp_path / "kept.pb.gz"
    kept.write_bytes(b"of yesterday")
    with running(build("tiny", "1.27.3"), "-hold", "1h") as process:
        assert process.stdout is not None
        process.stdout.readline()
        said = gomem("profile", process.pid, "-o", kept).refusal(1)
    assert "keeps no heap profile: nothing in it reads one, so the linker turned it off" in said
    assert kept.read_bytes() == b"of yesterday"


def test_whoever_is_no_go_process_or_nobody_is_refused() -> None:
    with sleeping() as process:
        assert "is not a Go program" in gomem("profile", process.pid).refusal(1)
    assert "no process" in gomem("profile", process.pid).refusal(1)
    assert "give one of these" in gomem("profile").refusal(2)
