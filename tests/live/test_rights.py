"""Rights taken away from a real gomem: what doctor says works is what works, and refusals name what is gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.machine.capabilities import CAPABILITIES
from gomem.tracer.machine.rights import own
from tests.support.builds import build
from tests.support.command import Outcome, gomem
from tests.support.requirements import absent, program

ROOT = Path(__file__).parents[2]
NOBODY = 65534
NEEDED = frozenset({"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_PERFMON"})
# What can stand in for another goes with it.
STANDS_IN = {"CAP_DAC_READ_SEARCH": "CAP_DAC_OVERRIDE", "CAP_BPF": "CAP_SYS_ADMIN", "CAP_PERFMON": "CAP_SYS_ADMIN"}

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _capable() -> None:
    if os.geteuid() != 0 or not own().effective >= NEEDED | {"CAP_SYS_ADMIN", "CAP_SETUID"}:
        absent("this test needs root, to take rights from it")


@pytest.fixture(scope="module")
def pid() -> Iterator[int]:
    """Run a Go program of another user."""
    target = build("churn", "1.25.5")
    as_nobody = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with open(target, "rb") as file:
        words = [program("setpriv", "util-linux"), *as_nobody, "--", f"/proc/self/fd/{file.fileno()}"]
        process = subprocess.Popen([*words, "-mb", "16", "-phase", "300ms"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, pass_fds=(file.fileno(),))  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def keeping(*names: str) -> Sequence[str]:
    """Return the words that run a command as root with these capabilities and no other."""
    kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in names)
    return [program("setpriv", "util-linux"), f"--bounding-set=-all{kept}", "--inh-caps=-all", "--"]


def without(*names: str) -> Sequence[str]:
    """Return the words that run a command as root with all that we have but these and what stands in for them."""
    gone = {*names, *(STANDS_IN[name] for name in names if name in STANDS_IN)}
    return keeping(*(name for name in own().effective - gone if name.removeprefix("CAP_") in CAPABILITIES))


RIGHTS: dict[str, Callable[[], Sequence[str]]] = {
    "all": lambda: keeping(*own().effective),
    "those of README": lambda: keeping(*NEEDED),
    "no SYS_PTRACE": lambda: without("CAP_SYS_PTRACE"),
    "no DAC_READ_SEARCH": lambda: without("CAP_DAC_READ_SEARCH"),
    "no BPF": lambda: without("CAP_BPF"),
    "no PERFMON": lambda: without("CAP_PERFMON"),
    "no SYS_ADMIN": lambda: without("CAP_SYS_ADMIN"),
    "none": keeping,
    "nobody": lambda: [program("setpriv", "util-linux"), f"--reuid={NOBODY - 1}", f"--regid={NOBODY - 1}",
                       "--clear-groups", "--inh-caps=-all", "--"],
}  # fmt: skip


def capabilities(under: Sequence[str]) -> frozenset[str]:
    """Return what a command that runs so has, as the kernel tells."""
    text = subprocess.run([*under, "cat", "/proc/self/status"], check=True, capture_output=True, text=True).stdout
    mask = int(text.partition("CapEff:")[2].split()[0], 16)
    return frozenset(f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def named(text: str) -> frozenset[str]:
    """Return the capabilities that a text asks for."""
    return frozenset(re.findall(r"CAP_[A-Z_]+", text))


def doctor(under: Sequence[str]) -> dict[str, Any]:
    done = gomem("doctor", "--format", "json", under=under)
    checks: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    assert done.status == any(check["ok"] is False for check in checks)
    return {check["name"]: check for check in checks}


def refused_rightly(outcome: Outcome, has: frozenset[str]) -> None:
    """Check a refusal: it names something that is missing, and nothing that is there."""
    message = outcome.refusal(77)
    assert named(message), message
    assert not named(message) & has, message
    assert not re.search(r"needs Linux", message), message


@pytest.mark.parametrize("rights", RIGHTS)
def test_what_the_doctor_says_works_is_what_works(rights: str, pid: int) -> None:
    under = RIGHTS[rights]()
    if rights == "nobody" and not os.access(sys.executable, os.X_OK):
        pytest.skip("nobody may not run this Python")
    has, said = capabilities(under), doctor(under)
    for name, check in said.items():
        assert not named(check["fix"]) & has, (name, check)

    events = look("trace", "--duration", "0.1", "--backend", "bpf", "--freeze", pid=pid, under=under)
    stands = events.status == 0 and not limits(events, "the target standing still")
    # Whatever did not work there is tried alone.
    frozen = events if stands else look("snapshot", "--freeze", pid=pid, under=under)
    snapshot = events if events.status == 0 else look("snapshot", pid=pid, under=under)
    for outcome in (events, frozen, snapshot):
        if outcome.status:
            refused_rightly(outcome, has)
    assert (said["others' maps"]["ok"] is True) == (snapshot.status == 0), (said["others' maps"], snapshot.stderr)
    if snapshot.status:
        assert said["others' memory"]["ok"] is not True
        return
    report = snapshot.report()
    assert (said["others' memory"]["ok"] is True) == (report["heap"] is not None), said["others' memory"]
    assert (said["others' residency"]["ok"] is True) == (not limits(snapshot, "which OS pages are resident"))
    assert not named(" ".join(limit["fix"] for limit in report["limits"])) & has, report["limits"]
    promised = all(said.get(row, {"ok": None})["ok"] is True for row in ("BPF programs", "tracepoints", "uprobes"))
    assert promised == (events.status == 0), (said, events.stderr)
    assert (said["--freeze"]["ok"] is True) == (frozen.status == 0), frozen.stderr


def look(*words: str, pid: int, under: Sequence[str]) -> Outcome:
    return gomem(*words, "--pid", pid, "--format", "json", under=under)


def limits(outcome: Outcome, what: str) -> list[dict[str, str]]:
    """Return the limits of a report that are of this."""
    return [limit for limit in outcome.report()["limits"] if limit["what"] == what]


@pytest.mark.parametrize("rights", ["all", "no DAC_READ_SEARCH"])
def test_the_runtimes_own_counts_are_missing_without_the_right_to_read_them_which_is_named(
    rights: str, pid: int
) -> None:
    done = gomem("profile", pid, "--source", "refill", "--duration", "0.3", under=RIGHTS[rights]())
    assert done.status == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("objects that no refill stands for")]
    assert [named(line) for line in told] == ([] if rights == "all" else [{"CAP_DAC_READ_SEARCH"}])


def test_another_user_with_the_capabilities_of_the_readme_reads_tracefs(pid: int) -> None:
    if not os.access(sys.executable, os.X_OK):
        pytest.skip("another user may not run this Python")
    kept = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in sorted(NEEDED))])
    under = [
        "unshare", "--mount", "--propagation=private", "--", "sh", "-c",
        'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"', "sh", program("setpriv", "util-linux"),
        f"--reuid={NOBODY - 1}", f"--regid={NOBODY - 1}", "--clear-groups", f"--bounding-set={kept}",
        f"--inh-caps={kept}", f"--ambient-caps={kept}", "--",
    ]  # fmt: skip
    done = look("trace", "--duration", "0.3", "--backend", "bpf", "--with", "rss", pid=pid, under=under)
    assert [limit for limit in done.report()["limits"] if "tracefs" in limit["why"]] == []


PERF = """
import json, os, sys
from gomem.bpf.source import BpfSource
from gomem.bpf.probes.uprobes import UprobeSpec
from tests.support.bpf.tracing import opened
from gomem.tracer.errors import GomemError
with opened(f"/proc/{sys.argv[1]}/exe", "1.25.5") as binary:
    source = BpfSource(int(sys.argv[1]), binary.specs(), uprobe_backend="perf")
    try:
        source.start()
        told = None
    except GomemError as error:
        told = [error.what, error.fix]
    finally:
        source.stop()
print(json.dumps(told))
"""


@pytest.mark.parametrize("rights", ["all", "no SYS_ADMIN"])
def test_uprobes_of_perf_events_work_where_the_doctor_says_so(rights: str, pid: int) -> None:
    under = RIGHTS[rights]()
    said = doctor(under).get("perf-event uprobes")
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [*under, sys.executable, "-c", PERF, str(pid)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (said is not None and said["ok"] is True) == (told is None), (said, told)
    if told is not None:
        assert named(told[1])
        assert not named(told[1]) & capabilities(under), told


def test_every_right_of_the_readme_has_a_row() -> None:
    table = (ROOT / "README.md").read_text().partition("## Permissions")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `CAP_")]
    assert len(rows) >= 3
    known = doctor(())
    for row in rows:
        tried = re.findall(r"`([^`]+)`", row[3])
        assert tried, row
        for name in tried:
            assert known[name]["detail"], name


def test_a_filter_that_forbids_bpf_is_found_and_named(pid: int, tmp_path: Path) -> None:
    everything = tmp_path / "profile.json"
    rules = [{"names": _calls_but("bpf"), "action": "SCMP_ACT_ALLOW"}]
    everything.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))
    confined = [sys.executable, "-m", "tests.support.under_seccomp", str(everything)]
    done = gomem("trace", "--pid", pid, "--duration", "0.1", "--backend", "bpf", under=confined)
    message = done.refusal(77)
    assert "seccomp filter forbids bpf" in message
    assert not named(message.partition("lacks")[2])
    assert "seccomp filter forbids bpf" in doctor(confined)["BPF programs"]["fix"]


def _calls_but(name: str) -> list[str]:
    import pyseccomp

    names = []
    for number in range(480):
        try:
            names.append(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode())
        except ValueError:
            continue  # none has this number
    return [one for one in names if one != name]
