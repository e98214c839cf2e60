"""`gomem profile --kind resident`, as a user types it, and as `go tool pprof` reads what it writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gomem.tracer.errors import EXIT_FAILED, EXIT_USAGE
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.parked import parked
from tests.support.pprof import pprof, top
from tests.support.processes import rss, sleeping


def test_go_tool_pprof_reads_a_profile_whose_total_is_rss(tmp_path: Path) -> None:
    file = tmp_path / "resident.pb.gz"
    with parked(build("parked", "1.27.3", stripped=True), live=8, goroutines=20) as target:
        done = gomem("profile", "--kind", "resident", "--freeze", "-o", file, target.pid)
        resident = rss(target.pid)
        page = gomem("profile", "--kind", "resident", "--cumulative", target.pid)
    assert done.status == page.status == 0
    rows = {row.name: row for row in top(str(file), unit="B")}
    assert sum(row.flat for row in rows.values()) == resident
    assert rows["spans in use"].cumulative > 2 << 20
    assert "spans in use" in pprof("-tree", str(file))
    assert {"pages", "slots"} <= set(re.findall(r"\w+", pprof("-tags", str(file))))
    assert "spans in use" in page.stdout
    assert "Go heap" in page.stdout


def test_a_process_that_is_no_go_program_is_told_by_what_the_kernel_knows() -> None:
    with sleeping() as process:
        page = gomem("profile", "--kind", "resident", process.pid)
        refused = gomem("profile", "--kind", "resident", "--require-go", process.pid).refusal(EXIT_FAILED)
        no_heap = gomem("profile", process.pid).refusal(EXIT_FAILED)
    assert page.status == 0
    assert "libc.so.6: code" in page.stdout
    assert "is not a Go program" in page.stdout
    assert "not a Go program" in refused
    assert "--kind resident" in no_heap


def test_what_a_kind_of_profile_has_not_is_refused() -> None:
    assert "--kind resident" in gomem("profile", "--freeze", os.getpid()).refusal(EXIT_USAGE)
    active = gomem("profile", "--kind", "resident", "--cycle", "active", os.getpid())
    assert "--kind heap" in active.refusal(EXIT_USAGE)
