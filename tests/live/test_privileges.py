"""Letting go of capabilities, in child processes that have them: what is gone, and what still works."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.machine.privileges import Task, held, needed_for
from tests.support.builds import build
from tests.support.processes import running
from tests.support.requirements import absent, program

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture(autouse=True)
def _capable() -> None:
    if "CAP_SYS_PTRACE" not in held().permitted or os.getuid() != 0:
        absent("this test needs root with CAP_SYS_PTRACE")


def child(code: str, *before: object, **environment: str) -> Any:
    """Run Python code in a process of its own; it prints one JSON value."""
    words = [*map(str, before), sys.executable, "-c", code]
    # NumPy's BLAS would start threads before privileges can be dropped.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOOK_AROUND = """
import json, os, subprocess
from gomem.tracer.machine import privileges
privileges.drop(frozenset({keep!r}))
def status(text):
    return dict(line.split(":\\t", 1) for line in text.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
own = status(open("/proc/self/status").read())
executed = status(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
print(json.dumps({{"own": own, "executed": executed, "held": sorted(privileges.held().effective)}}))
"""


def test_what_is_kept_is_kept_and_all_else_is_gone_for_good() -> None:
    keep = ["CAP_BPF", "CAP_SYS_PTRACE"]
    found = child(LOOK_AROUND.format(keep=keep))
    assert found["held"] == keep
    mask = 1 << 39 | 1 << 19
    assert {name: int(found["own"][name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {
        "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapInh": 0, "CapAmb": 0,
    }  # fmt: skip
    assert found["own"]["NoNewPrivs"] == "1"


def test_root_regains_nothing_by_executing_a_program() -> None:
    found = child(LOOK_AROUND.format(keep=["CAP_SYS_PTRACE"]))
    assert int(found["executed"]["CapEff"], 16) == 0
    assert int(found["executed"]["CapPrm"], 16) == 0


def test_without_the_right_to_shrink_the_bounding_set_the_rest_is_still_dropped() -> None:
    found = child(
        LOOK_AROUND.format(keep=["CAP_SYS_PTRACE"]), program("setpriv", "util-linux"),
        "--bounding-set=-all,+sys_ptrace,+net_admin,+kill", "--inh-caps=-all", "--",
    )  # fmt: skip
    assert found["held"] == ["CAP_SYS_PTRACE"]
    assert int(found["own"]["CapPrm"], 16) == 1 << 19
    assert int(found["executed"]["CapEff"], 16) & ~(1 << 19) == 0


def test_another_user_with_ambient_capabilities_keeps_what_is_asked_for() -> None:
    caps = "-all,+sys_ptrace,+bpf,+kill"
    found = child(
        LOOK_AROUND.format(keep=["CAP_SYS_PTRACE"]), program("setpriv", "util-linux"), f"--reuid={NOBODY}",
        f"--regid={NOBODY}", "--clear-groups", f"--bounding-set={caps}", f"--inh-caps={caps}",
        f"--ambient-caps={caps}", "--",
    )  # fmt: skip
    assert found["held"] == ["CAP_SYS_PTRACE"]
    assert int(found["own"]["CapAmb"], 16) == 0
    assert int(found["executed"]["CapEff"], 16) == 0


def test_dropping_what_is_not_there_does_nothing() -> None:
    found = child(
        LOOK_AROUND.format(keep=["CAP_SYS_PTRACE", "CAP_BPF"]), program("setpriv", "util-linux"),
        "--bounding-set=-all", "--inh-caps=-all", "--",
    )  # fmt: skip
    assert found["held"] == []


def test_a_thread_that_still_has_more_is_noticed() -> None:
    found = child("""
import json, threading
from gomem.tracer.machine import privileges
from gomem.tracer.errors import GomemError
release = threading.Event()
thread = threading.Thread(target=release.wait)
thread.start()
try:
    privileges.drop(frozenset())
    said = None
except GomemError as error:
    said = [error.what, thread.native_id]
finally:
    release.set()
    thread.join()
print(json.dumps(said))
""")
    said, number = found
    assert said.startswith(f"thread {number} of gomem still has CAP_")


def test_threads_started_afterwards_have_no_more() -> None:
    found = child("""
import json, threading
from gomem.tracer.machine import privileges
privileges.drop(frozenset({"CAP_SYS_PTRACE"}))
found = []
thread = threading.Thread(target=lambda: found.append(sorted(privileges.held().permitted)))
thread.start()
thread.join()
print(json.dumps(found[0]))
""")
    assert found == ["CAP_SYS_PTRACE"]


LOOK_AT = """
import json
from gomem.tracer.machine import privileges
privileges.drop(frozenset({keep!r}))
found = {{}}
for name in ("maps", "mem", "pagemap", "smaps_rollup"):
    try:
        with open("/proc/{pid}/" + name, "rb") as file:
            file.read(0 if name == "mem" else 8)
        found[name] = True
    except PermissionError:
        found[name] = False
print(json.dumps(found))
"""


def test_another_users_process_can_be_looked_at_with_the_capabilities_named_and_not_without_one_of_them() -> None:
    as_nobody = [program("setpriv", "util-linux"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    needed = needed_for(Task.LOOK)
    with running(*as_nobody, "sh", "-c", "echo ready; read x") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert set(child(LOOK_AT.format(keep=sorted(needed), pid=process.pid)).values()) == {True}
        for missing in sorted(needed):
            found = child(LOOK_AT.format(keep=sorted(needed - {missing}), pid=process.pid))
            assert False in found.values(), missing


FOLLOW = """
import json, sys, time
from gomem.tracer.machine import privileges
from gomem.bpf.shared_source import SharedSource
from tests.support.bpf.tracing import opened
(first, one), (second, other) = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4]))
with opened(first, "1.25.5") as early, opened(second, "1.27.3") as late:
    source = SharedSource()
    source.start()
    try:
        source.add(one, early.specs())
        privileges.drop(frozenset())
        source.add(other, late.specs())
        end = time.monotonic() + 60
        hits = lambda pid: sum(probe.hits for probe in source.target(pid).probes())
        while time.monotonic() < end and not all(map(hits, (one, other))):
            source.poll(0.1)
        found = [hits(pid) for pid in (one, other)]
        source.remove(one)
    finally:
        source.stop()
print(json.dumps([found, sorted(privileges.held().effective)]))
"""


@pytest.mark.bpf
def test_once_programs_are_loaded_events_and_probes_on_other_programs_need_no_capability() -> None:
    programs = [build("churn", release) for release in ("1.25.5", "1.27.3")]
    if not _uprobe_multi():
        absent("this kernel has no uprobe_multi links (Linux 6.6)")
    with (
        running(programs[0], "-mb", "48", "-phase", "200ms") as one,
        running(programs[1], "-mb", "48", "-phase", "200ms") as other,
    ):
        code = [sys.executable, "-c", FOLLOW, programs[0], one.pid, programs[1], other.pid]
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([str(word) for word in code], capture_output=True, text=True, env=env, timeout=200)
        assert done.returncode == 0, done.stderr
        hits, left = json.loads(done.stdout)
        assert min(hits) > 0
        assert left == []


def _uprobe_multi() -> bool:
    return tuple(int(part) for part in re.findall(r"[0-9]+", os.uname().release)[:2]) >= (6, 6)


def test_limits_leave_no_core_dump_and_allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = child("""
import json, resource
from gomem.tracer.machine import privileges
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
privileges.limit_resources(5000)
first = resource.getrlimit(resource.RLIMIT_NOFILE)
privileges.limit_resources(50)
print(json.dumps([first, resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)]))
""")
    wanted = 5000 if hard == resource.RLIM_INFINITY else min(5000, hard)
    assert found == [[wanted, hard], [wanted, hard], [1, 1]]


def test_a_crash_after_limiting_leaves_no_core() -> None:
    code = "from gomem.tracer.machine import privileges; privileges.limit_resources(100); import os; os.abort()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    _, ended = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert os.WIFSIGNALED(ended)
    assert not os.WCOREDUMP(ended)


def test_an_unknown_capability_is_a_mistake_of_ours() -> None:
    from gomem.tracer.machine.privileges import drop

    with pytest.raises(ValueError, match="CAP_NONSENSE"):
        drop(frozenset({"CAP_NONSENSE"}))
