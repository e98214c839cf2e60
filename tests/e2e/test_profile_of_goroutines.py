"""`gomem profile --kind goroutine`, as a user types it, and as `go tool pprof` reads what it writes."""

from __future__ import annotations

from pathlib import Path

from gomem.tracer.errors import EXIT_FAILED
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.goroutines import parked_goroutines
from tests.support.pprof import top
from tests.support.processes import sleeping


def test_go_tool_pprof_finds_goroutines_where_the_process_says_they_are(tmp_path: Path) -> None:
    file = tmp_path / "goroutine.pb.gz"
    with parked_goroutines(build("goroutines", "1.27.3", stripped=True), tmp_path, "-count", 7) as process:
        written = gomem("profile", "--kind", "goroutine", "-o", file, process.pid)
        page = gomem("profile", "--kind", "goroutine", "--cumulative", "--top", 200, process.pid)
        folded = gomem("profile", "--kind", "goroutine", "--format", "folded", process.pid)
        own = {row.name: row for row in top(str(process.profile))}
    assert written.status == page.status == folded.status == 0
    assert written.stderr == ""
    ours = {row.name: row for row in top(str(file))}
    assert own["main.inlined"].cumulative == ours["main.inlined"].cumulative == 7
    assert sum(row.flat for row in ours.values()) == sum(row.flat for row in own.values())
    assert "main.inlined" in page.stdout
    (line,) = (line for line in folded.stdout.splitlines() if ";main.inlined;" in line)
    assert line.endswith(";runtime.chanrecv1;runtime.chanrecv;runtime.gopark 7")


def test_what_is_no_go_program_is_refused() -> None:
    with sleeping() as process:
        said = gomem("profile", "--kind", "goroutine", process.pid).refusal(EXIT_FAILED)
    assert "is not a Go program" in said
