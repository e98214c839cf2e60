"""When plugins are looked for, and what a hostile set of mapped files can cost."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from gomem.tracer.errors import TargetGone
from gomem.tracer.events.record import EventBatch, no_events
from gomem.tracer.kernel.maps import Mappings, MappingsRead
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.watch.plugins import Plugins
from tests.support.samples.events import ANONYMOUS, EXEC, PRIVATE, READ, batch, mmap, munmap

BASE = 0x7F00_0000_0000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """Return the targets whose mappings were read; they have 1000 mapped files, which are no longer there."""
    seen: list[Target] = []

    def read(target: Target) -> MappingsRead:
        seen.append(target)
        start = np.arange(BASE, BASE + 1000 * 8192, 8192, dtype=np.uint64)
        yes, inode = np.ones(1000, np.bool_), np.arange(1, 1001, dtype=np.uint64)
        columns = start, start + np.uint64(4096), yes, ~yes, yes, ~yes, np.zeros(1000, np.uint64), inode, inode
        return MappingsRead(Mappings(*columns, ["/bin/true"] * 1000), 0, 0, 1, (0, 0))

    monkeypatch.setattr("gomem.tracer.watch.plugins.read_mappings", read)
    return seen


def plugins(pid: int = 2**22 + 1, share: float = 1.0) -> Plugins:
    target = SimpleNamespace(pid=pid, exe_identity=SimpleNamespace(inode=7))
    return Plugins(cast(Target, target), GoProgram(None, None, None, None), lambda _: ([], []), lambda _: [], share)


def test_only_code_of_files_is_looked_into(looks: list[Target]) -> None:
    found = plugins()
    dull = batch(
        mmap(1, BASE, 1, READ, PRIVATE), mmap(2, BASE, 1, EXEC, PRIVATE | ANONYMOUS), mmap(3, -12, 1, EXEC, PRIVATE),
        munmap(4, BASE, EXEC),
    )  # fmt: skip
    assert found.see(dull) is dull
    assert looks == []
    found.see(batch(mmap(5, BASE, 1, READ | EXEC, PRIVATE)))
    assert len(looks) == 1


def test_files_are_opened_once_and_not_without_end(looks: list[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(path: str) -> None:
        opened.append(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr("gomem.tracer.watch.plugins.Executable.open", refuse)
    found = plugins()
    again = batch(mmap(5, BASE, 1, READ | EXEC, PRIVATE))
    for _ in range(3):
        assert found.see(again) is again
    assert len(looks) == 3
    assert len(opened) < 600
    assert not [path for path in opened if not path.startswith(f"/proc/{2**22 + 1}/")]
    assert (found.loaded, found.limits) == ([], [])


def test_a_target_that_is_gone_has_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(target: Target) -> MappingsRead:
        raise TargetGone("it is gone")

    monkeypatch.setattr("gomem.tracer.watch.plugins.read_mappings", gone)
    one: EventBatch = batch(mmap(5, BASE, 1, READ | EXEC, PRIVATE))
    assert plugins().see(one) is one
    assert plugins().search() == []


def test_a_file_that_has_taken_the_place_of_the_mapped_one_is_let_go_of(looks: list[Target]) -> None:
    before = os.listdir("/proc/self/fd")
    found = plugins(os.getpid())
    assert found.search() == []
    assert (found.loaded, found.limits) == ([], [])
    assert os.listdir("/proc/self/fd") == before
    assert found.symbolize(BASE) is None


def test_searches_in_vain_take_no_more_than_their_share_of_the_time(
    looks: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0

    def passing() -> float:
        nonlocal now
        now += 0.01
        return now

    monkeypatch.setattr("gomem.tracer.watch.plugins.time.monotonic", passing)
    found = plugins(share=0.02)
    one = batch(mmap(5, BASE, 1, READ | EXEC, PRIVATE))
    for _ in range(20):
        found.see(one)
    assert len(looks) == 1
    assert found.waiting
    now += 1.0
    found.see(no_events())
    assert len(looks) == 2
    assert not found.waiting
