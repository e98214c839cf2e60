"""With which capabilities, and no others, each mode of gomem does all that it does with every right.

They are taken away from a gomem with user id 0 that looks at a process of another user; see tests/kernels/least.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.machine.capabilities import CAPABILITIES
from gomem.tracer.machine.rights import own
from tests.kernels.least import FILE, Confined, Need, Set, smallest
from tests.kernels.recorder import FILE as TESTS
from tests.kernels.surroundings import SURROUNDINGS
from tests.support.builds import build
from tests.support.command import Outcome, gomem
from tests.support.serving import serving

pytestmark = pytest.mark.bpf

USER, OTHER = 65534, 65533
CHURN = ("-mb", "24", "-phase", "200ms", "-seconds", "3600")
# What stands in for others goes before those; what is left in the end is the least that can be given.
LAST = ("CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_PERFMON", "CAP_BPF")
Words = Sequence[str]
_MISSING = re.compile(r"\b(lacks|cannot|could not|may not)\b")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run of gomem did not do, None if it failed, and what it said of that."""

    gaps: frozenset[str] | None
    said: str


def as_root(has: Set) -> list[str]:
    """Return the words that run a command as user id 0 with these capabilities and no other."""
    return ["setpriv", f"--bounding-set={_list(has)}", "--inh-caps=-all", "--"]


def as_user(user: int, has: Set) -> list[str]:
    """Return the words that run a command as another user with these, ambient, and no other."""
    listed = _list(has)
    rights = [f"--bounding-set={listed}", f"--inh-caps={listed}", f"--ambient-caps={listed}"]
    # With a cache of its own, or it would compile the BPF programs at each run.
    cached = ["env", f"XDG_CACHE_HOME={_cache_of(user).name}"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights, "--", *cached]


@cache
def _cache_of(user: int) -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="gomem-cache-")
    os.chown(directory.name, user, user)
    return directory


def _list(has: Set) -> str:
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in sorted(has))])


def looked(done: Outcome) -> Seen:
    """Return what is missing of a report on standard output."""
    if done.status != 0:
        return _failed(done)
    return _of_report(done.report())


def printed(done: Outcome) -> Seen:
    """Return what is said to be missing of a table, before its rows."""
    if done.status != 0:
        return _failed(done)
    head = done.stdout.partition(" flat ")[0].splitlines()
    missing = [" ".join(line.split()) for line in [*head, *done.stderr.splitlines()] if _MISSING.search(line)]
    # Without the numbers, which are of the moment.
    return Seen(frozenset(re.sub(r"\d+", "", line) for line in missing), "; ".join(missing))


def _failed(done: Outcome) -> Seen:
    return Seen(None, " ".join(done.stderr.split()).removeprefix("gomem: "))


def _of_report(report: dict[str, Any]) -> Seen:
    limits = [limit for limit in report["limits"] if limit["kind"] == "gap"]
    gaps = {limit["id"] for limit in limits} | {f"backend {report['backend']}"}
    gaps |= {"no heap"} if report["heap"] is None else set()
    # Of a process that moves all the time; a snapshot has no events.
    if report["backend"] == "bpf":
        hits = {probe["role"]: probe["hits"] for probe in report["overhead"]["probes"]}
        gaps |= {f"no {role}" for role in ("used", "unused") if not hits.get(role)}
    said = [f"{limit['what']}: {limit['why']}; {limit['fix']}" for limit in limits]
    return Seen(frozenset(gaps), " ".join("; ".join(said).split()))


def report(*words: object) -> Callable[[Words, int], Seen]:
    """Return what tries a command with a report of a process."""
    return lambda under, pid: looked(gomem(*words, "--pid", pid, "--format", "json", under=under))


def table(*words: object) -> Callable[[Words, int], Seen]:
    """Return what tries a command that prints something else."""
    return lambda under, pid: printed(gomem(words[0], pid, *words[1:], under=under))


def launched(under: Words, pid: int) -> Seen:
    """Try `trace -- COMMAND`, of which the target is gomem's own child; `pid` is not looked at."""
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        file = Path(directory) / "report"
        Path(directory).chmod(0o777)  # another user may write there
        command = [shutil.copy(build("churn", "1.27.3"), directory), "-mb", "24", "-phase", "200ms", "-rounds", "3"]
        words = ("trace", "--backend", "bpf", "--format", "json", "-o", file, "--", *command)
        done = gomem(*words, under=under)
        return _of_report(json.loads(file.read_text())) if done.status == 0 else _failed(done)


def served(under: Words, pid: int) -> Seen:
    """Try `serve`: how it hears of processes, and what it says of this one."""
    with serving("--exe", "churn", "--uid", USER, "--interval", "0.5", "--reports", under=under) as one:

        def state() -> str:
            states = [labels["state"] for labels, value in one.samples("gomem_process_state", pid=str(pid)) if value]
            return states[0] if states else "starting"

        def known() -> bool:
            return state() != "starting" or "may not be looked at" in one.log.read_text()

        one.until(known, f"a look at {pid}")
        ((info, _),) = one.samples("gomem_tracer_info")
        said = " ".join(one.log.read_text().split())[-600:]
        if state() not in ("followed", "kernel_only"):
            return Seen(None, f"{state()}; {said}")
        looks = partial(one.value, "gomem_looks_total", pid=str(pid))
        before = looks() or 0
        one.until(lambda: (looks() or 0) > before + 1, f"looks at {pid}")
        seen = _of_report(json.loads(one.get(f"/targets/{pid}/report.json")))
        assert seen.gaps is not None
        return Seen(seen.gaps | {f"by {info['discovery']}"}, f"{seen.said} {said}".strip())


MODES: dict[str, Callable[[Words, int], Seen]] = {
    "snapshot": report("snapshot"),
    "snapshot --freeze": report("snapshot", "--freeze"),
    "goroutines": table("goroutines"),
    "profile --kind resident": table("profile", "--kind", "resident"),
    "profile --source refill": table("profile", "--source", "refill", "--duration", "1"),
    "trace": report("trace", "--backend", "bpf", "--duration", "1"),
    "trace --with spans, rss, page-faults, --allocs": report(
        "trace", "--backend", "bpf", "--duration", "1", "--with", "spans", "--with", "rss", "--with", "page-faults",
        "--allocs", "--budget", "100",
    ),
    "trace -- COMMAND": launched,
    "trace --backend strace": report("trace", "--backend", "strace", "--duration", "1"),
    "serve": served,
}  # fmt: skip


@pytest.fixture(scope="module")
def pid() -> Iterator[int]:
    """Run a Go program of another user, which moves all the time."""
    words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--"]
    with open(build("churn", "1.27.3"), "rb") as file:
        command = [*words, f"/proc/self/fd/{file.fileno()}", *CHURN]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(file.fileno(),)
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def everything() -> Set:
    """Return all capabilities that the kernel knows and we have."""
    return frozenset(own().effective & {f"CAP_{name}" for name in CAPABILITIES})


def lacks(mode: str, under: Words, pid: int, whole: Seen) -> str:
    """Return what gomem says of what it does not do under these rights, but does with all; "" for nothing."""
    seen = MODES[mode](under, pid)
    assert whole.gaps is not None
    if seen.gaps is not None and seen.gaps <= whole.gaps:
        return ""
    return seen.said[:600] or f"without a word: {sorted(seen.gaps - whole.gaps) if seen.gaps else 'it failed'}"


def note(found: Need | Confined) -> None:
    """Append a line to what the machine hands over, if a machine it is."""
    if TESTS in os.environ:
        with (Path(os.environ[TESTS]).parent / FILE).open("a") as lines:
            lines.write(json.dumps(asdict(found)) + "\n")


@pytest.mark.parametrize("mode", MODES)
def test_each_right_of_the_smallest_set_is_named_where_it_is_missing(mode: str, pid: int) -> None:
    every = everything()
    whole = MODES[mode](as_root(every), pid)
    assert whole.gaps is not None, whole.said
    groups = [every - set(LAST), *(frozenset([name]) for name in LAST)]
    needed, without = smallest(groups, lambda has: lacks(mode, as_root(has), pid, whole))
    another = lacks(mode, as_user(OTHER, needed), pid, whole)
    note(Need(mode, sorted(needed), without, another))
    unnamed = {name: said for name, said in without.items() if name not in said}
    assert not unnamed


@pytest.mark.parametrize("mode", ["snapshot", "goroutines", "profile --kind resident"])
def test_a_process_of_ones_own_user_takes_no_right_at_all_to_be_read(mode: str, pid: int) -> None:
    whole = MODES[mode](as_root(everything()), pid)
    assert not lacks(mode, as_user(USER, frozenset()), pid, whole)
    note(Need(f"{mode}, of a process of one's own user", [], {}))


@cache
def unconfined(mode: str, pid: int) -> tuple[Set, Seen]:
    """Return capabilities with which a mode does what it does, and that."""
    given = frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"})
    whole = MODES[mode](as_root(given), pid)
    if whole.gaps is None:
        given |= {"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"}
        whole = MODES[mode](as_root(given), pid)
    assert whole.gaps is not None, whole.said
    return given, whole


# The surroundings one after the other: what the last one forbids is forbidden until the machine ends.
@pytest.mark.parametrize("mode", ["snapshot", "trace"])
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_a_surrounding_that_forbids_something_is_no_hindrance_or_is_named(
    mode: str, surrounding: str, pid: int, tmp_path: Path
) -> None:
    given, whole = unconfined(mode, pid)
    way = SURROUNDINGS[surrounding]
    with way.words(given, tmp_path) as words:
        said = lacks(mode, [*words, *as_root(given)], pid, whole)
    note(Confined(surrounding, mode, said))
    assert not said or any(word in said for word in way.names), said
