"""Heap profiles of servers that others built, record for record as they serve them of themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import gomem
from tests.support.etcd import debians_etcd, etcd, running_etcd
from tests.support.heapprofile import Records, records_of


@pytest.mark.parametrize("program", [debians_etcd, etcd])
def test_the_profile_is_the_one_that_the_server_serves(program: Callable[[], Path], tmp_path: Path) -> None:
    def served(name: str) -> Records:
        path = tmp_path / name
        path.write_bytes(server.fetch("/debug/pprof/heap"))
        return records_of(path, tmp_path)

    with running_etcd(tmp_path, program()) as server:
        for number in range(60):
            server.put(f"key {number}", bytes(100_000))
        for _ in range(10):  # a collection between two of its own profiles changes them
            before = served("before")
            assert gomem("profile", server.pid, "-o", tmp_path / "ours.pb.gz").status == 0
            after = served("after")
            if before.with_values() == after.with_values():
                break
    ours = records_of(tmp_path / "ours.pb.gz", tmp_path)
    assert ours.with_values() == before.with_values() == after.with_values()
    assert len(ours.with_values()) > 10
    assert ours.period == before.period
    assert ours.mappings[0].split()[-1] == before.mappings[0].split()[-1]
