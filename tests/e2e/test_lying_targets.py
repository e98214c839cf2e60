"""A process that lies about its own runtime costs gomem no more memory and no more time than its own limits allow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.process.memory import READ_FLOOR, READS_OF_RESIDENT
from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.liar import liar, silenced, trap
from tests.support.mapped_often import mapped_often
from tests.support.peak import peak

MIB = 1 << 20


def limits(report: dict[str, Any]) -> str:
    return " | ".join(f"{limit['what']}: {limit['why']}" for limit in report["limits"])


@pytest.mark.parametrize("count", [1 << 22, 1 << 27])
def test_spans_that_are_claimed_take_no_more_of_our_memory_than_our_limit_allows(count: int) -> None:
    with liar() as target:
        honest, _ = peak("snapshot", "--pid", target.pid, limit=512 * MIB)
        target.claim_spans(target.told("anonymous", count * 8), count)
        lying, text = peak("snapshot", "--pid", target.pid, limit=512 * MIB)
    assert f"claims {count} spans" in " ".join(text.split())
    assert lying < honest + 32 * MIB


def test_a_page_that_is_mapped_often_does_not_raise_what_is_read_of_a_process() -> None:
    with liar() as target:
        target.told("memfd", 1024 * MIB, 2 * MIB)
        status = Path(f"/proc/{target.pid}/status").read_text()
        shown = {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}
        assert shown["VmRSS"] > 1000 * MIB
        with Target.open(target.pid) as process, Inspector.open(process) as inspector:
            memory = inspector.memory()
            memory.start_budget()
            assert memory._budget <= READ_FLOOR + READS_OF_RESIDENT * (shown["RssAnon"] + 4 * MIB)


def test_long_paths_of_many_mappings_are_not_held_whole(tmp_path: Path) -> None:
    shallow, deep = (tmp_path / name for name in ("shallow", "deep"))
    with mapped_often(shallow, 60_000, 1) as few, mapped_often(deep, 60_000, 14) as many:
        short, _ = peak("snapshot", "--pid", few, limit=512 * MIB)
        long, _ = peak("snapshot", "--pid", many, limit=512 * MIB)
    assert long < short + 16 * MIB


def test_a_runtime_that_points_into_a_file_whose_file_system_never_answers_is_not_followed_there() -> None:
    with trap(build("liar", "1.25.5")) as (server, path), liar() as target:
        where = target.told("file", path, 1 << 20)
        with silenced(server):
            target.claim_spans(where, 100)
            report = gomem("snapshot", "--pid", target.pid, "--format", "json", timeout=30).report()
        assert report["heap"] is None
        assert report["virtual"]["total"] > 0
        assert "whose file system might never answer" in limits(report)
