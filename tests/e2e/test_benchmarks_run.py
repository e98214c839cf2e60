"""The benchmarks do not rot: each runs with windows of a blink and prints its table, whatever the figures are."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.requirements import program
from tests.support.toolchains import RELEASES

ROOT = Path(__file__).resolve().parent.parent.parent
RATIO = r"\d+\.\d+ \((?:one pair|\d+\.\d+-\d+\.\d+)\)"


def run(module: str, *words: str) -> str:
    """Run a benchmark and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *words], cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stderr:  # a tracer that was stuck, and where its threads waited: shown with the results, not a failure
        warnings.warn(f"{module}: {done.stderr[-4000:]}", stacklevel=2)
    return done.stdout


@pytest.mark.bpf
def test_the_cost_of_counting_allocations_is_a_ratio_and_estimates_are_held_against_the_truth() -> None:
    said = run("allocs", "--quick")
    assert re.search(rf"^work per CPU second, counted / not counted: {RATIO}$", said, re.MULTILINE)
    assert re.search(r"^bytes by size class: \d+ classes, off by \d", said, re.MULTILINE)
    assert re.search(r"^bytes by type: off by \d", said, re.MULTILINE)
    assert re.search(
        r"^bytes by call site: off by \d.*; \d+ of the first 10 are in their right place", said, re.MULTILINE
    )
    assert re.search(
        r"^call sites beside its own profile of all objects .*: \d+ of the first 10 are", said, re.MULTILINE
    )


@pytest.mark.bpf
def test_the_table_of_overheads_has_a_ratio_for_every_tracer_and_says_what_it_is_worth() -> None:
    program("strace", "strace")
    build("httpserver", "1.25.5")
    said = run("overhead", "--quick", "--targets", "httpserver", "--tracers", "gomem,strace")
    header = next(line for line in said.splitlines() if "no tracer" in line)
    assert re.split(r"\s{2,}", header.strip()) == ["no tracer", "gomem", "strace -f -e trace=memory"]
    rows = [line for line in said.splitlines() if line.startswith("httpserver: ") and "  " in line]
    named = {line.partition("  ")[0]: re.findall(RATIO, line) for line in rows}
    for row in ("work per CPU second", "- by what it does itself", "work per second"):
        assert len(named[f"httpserver: {row}"]) == 3, said
    assert re.search(r"httpserver: - by [1-9][\d,]+ calls/s, slower +1\.0000 +\d\.\d{4} +\d\.\d{4}", said), said
    assert re.search(r"takes longer by: gomem -?\d+ ns, strace", said), said
    assert re.search(r"other processes used \d+\.\d % of one core", said)
    assert "could not have been seen" in said


@pytest.mark.bpf
def test_the_throughput_is_of_runs_without_a_loss() -> None:
    build("callstorm", "1.25.5")
    said = run("throughput", "--quick")
    rates = [int(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) a second asked for", said)]
    assert rates[0] == 1000
    assert re.search(r"[\d,]+ events a second from the kernel into the model without a loss", said), said
    assert re.search(r"other processes used \d+\.\d % of one core", said)


@pytest.mark.bpf
def test_the_soak_loses_no_process_and_prints_how_gomem_fares() -> None:
    for target in ("churn", "tiny"):
        for release in RELEASES[:3]:
            build(target, release)
    said = run("soak", "--minutes", "0.1", "--rate", "20", "--steady", "2", "--loops", "1", "--every", "2")
    assert re.search(r"^ +\d+ +\d+\.\d +\d+\.\d +\d+ +\d+ ", said, re.MULTILINE), said
    assert re.search(r"[1-9]\d* scrapes, the slowest \d+ ms; 0 lacked a long-lived process", said), said
    assert re.search(r"programs seen, 0 of them misattributed", said), said
    assert said.endswith("no fault found\n")


@pytest.mark.bpf
def test_the_attacks_are_made_and_their_table_has_a_row_for_each() -> None:
    for target in ("steady", "liar"):
        build(target, "1.25.5")
    said = run("attack", "--quick")
    for row in (r"SIGKILL, together +3", r"SIGSTOP, together +2"):
        assert re.search(rf"^{row} +\d+ +\d+ +\d+ +\d+ +[-\d]+ +\d+$", said, re.MULTILINE), said
    tried = re.findall(r"^(\S.*?) +25 +\d+ +(\d+) +\d+ ms$", said, re.MULTILINE)
    assert {"recordings", "DWARF", "/proc/PID/maps", "HTTP requests"} <= {name for name, _ in tried}
    assert len(re.findall(r"^.*\bclients\b.* +\d+/[1-9]\d* +\d+/[1-9]\d* +\d+ ms +\d+\.\d\d$", said, re.MULTILINE)) == 4
    assert len(re.findall(r" +[1-9]\d* MiB$", said, re.MULTILINE)) == 5, said
    assert re.search(r"other processes used \d+\.\d % of one core", said)


def test_what_profiles_take_and_cost_is_printed_for_each_format() -> None:
    said = run("profiles", "--quick")
    assert re.search(r"300 stacks: [3-9]\d\d buckets, [1-9][\d,]+ calls; the reader alone \d+\.\d ms", said), said
    shown = re.findall(r"--format (\w+) +\d+\.\d\d s +\d+\.\d\d s CPU +peak +\d+ MB, [+-]\d+\.\d MB", said)
    assert shown == ["pprof", "top", "html"]
    assert re.search(rf"^work per CPU second, [1-9]\d* profiles taken / none: {RATIO}$", said, re.MULTILINE), said
