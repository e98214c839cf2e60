"""A followed program that takes back scavenged memory all the time: its probe goes, and the looks tell the rest."""

from __future__ import annotations

import pytest

from gomem.bpf.shared_target import SharedTarget
from gomem.tracer.discovery.selection import Selection
from gomem.tracer.report import Report
from tests.support.bpf.sharing import sharing
from tests.support.builds import build
from tests.support.fleets import of, watching
from tests.support.processes import running

pytestmark = pytest.mark.bpf

LOOKS = 12


def hits_of_used(target: SharedTarget) -> int:
    return sum(status.hits for status in target.probes() if status.role == "used")


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_what_it_would_cost_too_much_to_watch_is_learned_from_looks(release: str) -> None:
    path, words = build("scavenger", release), ("-mb", "32", "-block", "64")
    with sharing(share_for_used=5e-5) as source, running(path, *words) as process:
        pid = process.pid
        with watching(Selection(pids=frozenset((pid,))), source) as watched:

            def report_after(looks: int) -> Report:
                def there(view: object) -> bool:
                    one = of(watched.views[-1], pid)
                    return one is not None and one.looks >= looks and one.report is not None

                one = of(watched.until(there, f"{looks} looks"), pid)
                assert one is not None
                assert one.report is not None
                return one.report

            report_after(2)
            target = source.target(pid)
            watched.until(lambda _: not any(used.attached for used in target.uprobes.governed), "the probe is off")
            assert target.uprobes.governed
            hits = hits_of_used(target)
            last = report_after(LOOKS)
            assert hits_of_used(target) == hits
    (limit,) = [one for one in last.limits if one.what == "all events of role used"]
    assert "0.005 %" in limit.why
    assert last.drift is not None
    assert last.event_loss is not None
    assert last.drift.exact_looks >= LOOKS // 2
    assert (last.event_loss.drift_bytes, last.drift.illegal_count, last.event_loss.lost) == (0, 0, 0)
    assert not watched.complaints
