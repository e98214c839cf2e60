"""Heap profiles of servers that others built, record for record as they serve them of themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import gomem
from tests.support.etcd import Etcd, debians_etcd, etcd, running_etcd
from tests.support.heapprofile import Records, records_of
from tests.support.prometheus import Prometheus, running_prometheus


def between_its_own(server: Etcd | Prometheus, directory: Path) -> tuple[Records, Records, Records]:
    """Return the server's own heap profile, ours, and its own again."""

    def served(name: str) -> Records:
        path = directory / name
        path.write_bytes(server.fetch("/debug/pprof/heap"))
        return records_of(path, directory)

    for _ in range(10):  # a collection between two of its own profiles changes them
        before = served("before")
        assert gomem("profile", server.pid, "-o", directory / "ours.pb.gz").status == 0
        after = served("after")
        if before.with_values() == after.with_values():
            break
    return before, records_of(directory / "ours.pb.gz", directory), after


@pytest.mark.parametrize("program", [debians_etcd, etcd])
def test_the_profile_is_the_one_that_the_server_serves(program: Callable[[], Path], tmp_path: Path) -> None:
    with running_etcd(tmp_path, program()) as server:
        for number in range(60):
            server.put(f"key {number}", bytes(100_000))
        before, ours, after = between_its_own(server, tmp_path)
    assert ours.with_values() == before.with_values() == after.with_values()
    assert len(ours.with_values()) > 10
    assert ours.period == before.period
    assert ours.mappings[0].split()[-1] == before.mappings[0].split()[-1]


def test_prometheus_serves_the_same_profile(tmp_path: Path) -> None:
    with running_prometheus(tmp_path) as server:
        before, ours, after = between_its_own(server, tmp_path)
    assert ours.with_values() == before.with_values() == after.with_values()
    assert len(ours.with_values()) > 5
    assert ours.period == before.period
