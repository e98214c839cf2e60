"""Followed processes that end: nothing of what was known of them stays, also where no garbage collector comes."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gomem.bpf.shared_target import SharedTarget
from gomem.tracer.addresses.interval_map import IntervalMap
from gomem.tracer.discovery.selection import Selection
from gomem.tracer.fleet.session import FleetSession
from gomem.tracer.model.mappings import MappingModel
from gomem.tracer.model.reconcile.reconciler import Reconciler
from tests.support.bpf.sharing import sharing
from tests.support.builds import Mode, build
from tests.support.fleets import of, watching
from tests.support.processes import running

pytestmark = pytest.mark.bpf
OF_A_PROCESS = (FleetSession, Reconciler, SharedTarget, MappingModel, IntervalMap)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("name", "mode", "words"), [("churn", "exe", ("-mb", "16", "-phase", "100ms")), ("plugins", "cgo", ())]
)
def test_all_that_was_known_of_a_process_goes_with_it(name: str, mode: Mode, words: tuple[str, ...]) -> None:
    program = build(name, "1.25.5", mode=mode)
    with sharing() as source:
        for _ in range(2):
            with running(program, *words) as process:
                pid = process.pid
                with watching(Selection(pids=frozenset((pid,))), source) as watched:
                    watched.until(lambda view: bool((one := of(view, pid)) and one.looks > 1), "it was followed")  # noqa: B023
                    process.kill()
                    watched.until(lambda view: of(view, pid) is None, "it left the view")  # noqa: B023
                    del watched
        left = [type(one) for one in gc.get_objects() if isinstance(one, OF_A_PROCESS)]
    assert left == []
