"""A gomem that is stopped leaves nothing on its target that costs by being there."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.support.bpf_objects import objects
from tests.support.builds import build
from tests.support.command import obeys_the_rules, outcome, started
from tests.support.processes import running, state, wait_until

BREAKPOINT = 0xCC


def breakpoints(pid: int, executable: Path) -> set[int]:
    """Return the addresses at which the kernel has put a breakpoint into a process that is not PIE."""
    with executable.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text is not None
        original, start = text.data(), text["sh_addr"]
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        now = memory.read(len(original))
    return {start + at for at, (was, byte) in enumerate(zip(original, now, strict=True)) if was != byte == BREAKPOINT}


def settled(pid: int, binary: Path) -> set[int]:
    """Return the breakpoints once they are the same for half a second."""
    now, until = breakpoints(pid, binary), time.monotonic() + 0.5
    while time.monotonic() < until:
        time.sleep(0.05)
        before, now = now, breakpoints(pid, binary)
        until = until if now == before else time.monotonic() + 0.5
    return now


@pytest.mark.bpf
def test_probes_that_are_dear_are_taken_off_while_gomem_is_stopped_and_come_back() -> None:
    binary = build("allocloop", "1.25.5")
    with running(binary, "-seconds", "300") as target:
        assert not breakpoints(target.pid, binary)
        words = ("trace", "--pid", target.pid, "--with", "spans", "--budget", "100", "--duration", "20")
        with started(*words, "--format", "json") as tracer:
            wait_until(lambda: len(breakpoints(target.pid, binary)) > 0, "the probes are on")
            rare_and_dear = breakpoints(target.pid, binary)
            os.kill(tracer.pid, signal.SIGSTOP)
            wait_until(lambda: len(breakpoints(target.pid, binary)) < len(rare_and_dear), "the dear ones are off")
            assert state(tracer.pid) == "T"
            rare = settled(target.pid, binary)  # they are taken off one by one
            assert rare < rare_and_dear
            os.kill(tracer.pid, signal.SIGCONT)
            wait_until(lambda: breakpoints(target.pid, binary) == rare_and_dear, "they are on again")
            os.kill(tracer.pid, signal.SIGINT)
            ended = outcome(tracer)
        wait_until(lambda: not breakpoints(target.pid, binary), "all are off")
    report = ended.report()
    obeys_the_rules(report)
    assert report["span_events"]["windows"] >= 2
    assert 0 < report["span_events"]["watched_seconds"] < report["duration_seconds"]


@pytest.mark.bpf
def test_allocations_are_counted_no_longer_while_gomem_is_stopped() -> None:
    binary = build("allocloop", "1.27.3")
    with running("taskset", "-c", max(os.sched_getaffinity(0)), binary, "-seconds", "300") as target:
        words = ("trace", "--pid", target.pid, "--allocs", "--budget", "100", "--duration", "30", "--format", "json")
        with started(*words) as tracer:
            wait_until(lambda: breakpoints(target.pid, binary) > set(), "the probes are on")
            rare_and_dear = settled(target.pid, binary)
            os.kill(tracer.pid, signal.SIGSTOP)
            wait_until(lambda: len(breakpoints(target.pid, binary)) < len(rare_and_dear), "the dear ones are off")
            assert settled(target.pid, binary) < rare_and_dear
            os.kill(tracer.pid, signal.SIGCONT)
            wait_until(lambda: breakpoints(target.pid, binary) == rare_and_dear, "they are on again")
            os.kill(tracer.pid, signal.SIGINT)
            ended = outcome(tracer)
        wait_until(lambda: not breakpoints(target.pid, binary), "all are off")
    report = ended.report()
    obeys_the_rules(report)
    assert "unseen-allocations" in {limit["id"] for limit in report["limits"]}
    assert not report["allocations"]["complete"]
    assert report["allocations"]["bursts"] == 2
    assert 0 < report["allocations"]["coverage"] < 1


def tracepoints_of(pid: int) -> frozenset[int]:
    """Return the ids of the links to tracepoints that a child of a process holds (proc_pid_fdinfo(5))."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for entry in Path(f"/proc/{child}/fdinfo").iterdir():
            with suppress(FileNotFoundError):
                fields = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
                if fields.get("link_type", "").strip() in ("raw_tracepoint", "perf"):
                    found.add(int(fields["link_id"]))
    return frozenset(found)


def resident(pid: int, what: str) -> int:
    """Return a line of /proc/PID/status, bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{what}:")[2].split()[0]) << 10


@pytest.mark.bpf
def test_what_is_hit_at_each_page_fault_of_the_machine_is_taken_off_while_gomem_is_stopped_and_comes_back() -> None:
    def there(ids: frozenset[int]) -> frozenset[int]:
        return ids & {number for what, number in objects() if what == "link_id"}

    with running(build("faults", "1.25.5"), "-ask") as target:

        def do(order: str) -> None:
            assert target.stdin is not None
            assert target.stdout is not None
            target.stdin.write(f"{order}\n".encode())
            target.stdin.flush()
            target.stdout.readline()

        words = ("trace", "--pid", target.pid, "--with", "page-faults", "--with", "rss", "--duration", "60")
        with started(*words, "--format", "json") as tracer:
            wait_until(lambda: len(tracepoints_of(tracer.pid)) == 3, "page faults and RSS are followed")
            dear = tracepoints_of(tracer.pid)
            assert there(dear) == dear
            os.kill(tracer.pid, signal.SIGSTOP)
            wait_until(lambda: not there(dear), "nothing is hit at each page fault")
            assert state(tracer.pid) == "T"
            do("shmem 4000")
            os.kill(tracer.pid, signal.SIGCONT)
            wait_until(lambda: len(tracepoints_of(tracer.pid)) == 3, "they are followed again")
            do("anon 1000")
            # What is told of them is read now and then, and once more at the end.
            os.kill(tracer.pid, signal.SIGINT)
            ended = outcome(tracer)
        shared, anonymous = resident(target.pid, "RssShmem"), resident(target.pid, "RssAnon")
    report = ended.report()
    obeys_the_rules(report)
    assert {"unseen-page-faults", "unseen-rss"} <= {limit["id"] for limit in report["limits"]}
    assert 1000 <= report["page_faults"]["count"] < 4000
    now = report["live_resident"]["now"]
    assert now["shmem"] == shared >= 4000 * 4096
    assert abs(now["anonymous"] - anonymous) < 1 << 20
