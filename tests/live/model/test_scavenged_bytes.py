"""What the scavenger returned, whoever asked it to: the bytes that strace and scavtrace count for the same program."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.atlimit import at_limit
from tests.support.command import outcome, started
from tests.support.godebug import scavenge_lines
from tests.support.madvise import madvise_log, returned

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_bytes_of_scavenging_are_those_returned_not_those_asked_for(release: str, tmp_path: Path) -> None:
    """At its limit each allocation of pages asks for all that is too much, most of which is not there to return."""
    log = tmp_path / "stderr"
    words = ("-stacks", 4000, "-buffers", 32)
    # Without a goal and a limit the background scavenger does nothing until both tracers watch.
    with (
        at_limit(release, *words, godebug="scavtrace=1", stderr=log, env={"GOGC": "off"}) as target,
        madvise_log(target.pid, tmp_path / "strace"),
        started("trace", "--pid", target.pid, "--duration", "60", "--format", "json") as run,
    ):
        before = target.say("limit 64")
        target.say("work 300ms")
        target.say("limit 4000")  # nobody else shall return what FreeOSMemory is to return
        target.say("drop 30")
        after = target.say("free")
        run.send_signal(signal.SIGINT)
        report = outcome(run).report()
    assert after["MemStats"]["NumGC"] > before["MemStats"]["NumGC"]
    found = returned(tmp_path / "strace")
    assert found
    by_source = report["scavenged_by"]
    assert report["event_loss"]["lost"] == 0
    assert {"allocation", "FreeOSMemory"} <= set(by_source)
    assert report["events"]["scavenge"]["count"] == len(found)
    assert report["events"]["scavenge"]["bytes"] == sum(found) == report["madvise"]["dontneed"]["bytes"]
    assert sum(row["bytes"] for row in by_source.values()) == sum(found)
    forced = sum(line.free_os_memory for line in scavenge_lines(log.read_text()))
    assert by_source["FreeOSMemory"]["bytes"] == forced > 0
    # Each call of the scavenger for a page that is not there would cost the target a hit.
    assert not [row for row in report["overhead"]["probes"] if row["role"] == "scavenge"]
