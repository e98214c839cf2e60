"""The shared source from inside a PID namespace of its own, where process ids can also be made to come again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[3]
COMMON = """
import subprocess, sys
from pathlib import Path
from tests.support.bpf.sharing import Gathered, sharing
from tests.live.bpf.test_shared_source import hear, mapped, say
from gomem.tracer.events.record import EventKind
MAPS = '''
import sys, mmap
for line in sys.stdin:
    mmap.mmap(-1, int(line))
    print("mapped", flush=True)
'''
def start(*nest):
    return subprocess.Popen([*nest, sys.executable, "-c", MAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def map_memory(process, size):
    say(process, b"%d\\n" % size)
    assert hear(process) == b"mapped\\n"
"""
NESTED = """
own, nested = start(), start("unshare", "--pid", "--fork", "--kill-child")
map_memory(nested, 4096)
inner = int(Path(f"/proc/{nested.pid}/task/{nested.pid}/children").read_text())
with sharing() as source:
    gathered = Gathered(source)
    source.add(own.pid)
    source.add(inner)
    map_memory(own, 12345678)
    map_memory(nested, 23456789)
    gathered.until(lambda: mapped(gathered.of(own.pid), 12345678) == 1, "own")
    gathered.until(lambda: mapped(gathered.of(inner), 23456789) == 1, "nested")
    assert set(gathered.of(own.pid)["tid"].tolist()) == {own.pid}
    assert set(gathered.of(inner)["tid"].tolist()) == {inner}
    assert not mapped(gathered.of(inner), 12345678)
    nested.kill()
    gathered.until_exit(inner)
    assert EventKind.EXIT not in gathered.kinds(own.pid)
own.kill()
own.communicate()
nested.communicate()
print("as expected")
"""
REUSED = """
tells_last = None if sys.argv[1] == "None" else False
first = start()
map_memory(first, 4096)  # its execve is over
with sharing(tells_last=tells_last) as source:
    gathered = Gathered(source)
    source.add(first.pid)
    map_memory(first, 4096)
    first.kill()
    first.communicate()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
    second = start()
    assert second.pid == first.pid, (first.pid, second.pid)
    map_memory(second, 12345678)
    gathered.until_exit(first.pid)
    kinds = gathered.kinds(first.pid)
    assert kinds[-1] == EventKind.EXIT, kinds
    assert EventKind.EXEC not in kinds, kinds
    assert not mapped(gathered.of(first.pid), 12345678), kinds
    source.add(second.pid)
    map_memory(second, 12345678)
    gathered.until(lambda: mapped(gathered.of(second.pid), 12345678) == 1, "the second's mapping")
    second.kill()
    second.communicate()
print("as expected")
"""

MANY = """
from gomem.bpf.pid_namespaces import MAX_NAMESPACES
from gomem.tracer.errors import BackendUnavailable
def nested(*command):
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert hear(process) == b"here\\n"
    return process, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
def end(process):
    process.kill()
    process.communicate()
with sharing() as source:
    here = [nested("sh", "-c", "echo here; read line") for _ in range(MAX_NAMESPACES)]
    *fit, one_too_many = [inner for _, inner in here]
    for inner in fit:
        source.add(inner)
    try:
        source.add(one_too_many)
    except BackendUnavailable as error:
        assert "PID namespaces" in error.what and "hostPID" in error.fix
    else:
        assert False, "one too many"
    assert one_too_many not in source.pids
    source.remove(fit[0])
    gathered = Gathered(source)
    loaded = nested(sys.executable, "-c", "print('here', flush=True)\\n" + MAPS)
    source.add(loaded[1])
    map_memory(loaded[0], 12345678)
    gathered.until(lambda: mapped(gathered.of(loaded[1]), 12345678) == 1, "in the place of another")
    assert not [pid for pid in fit if mapped(gathered.of(pid), 12345678)]
    for process, _ in [*here, loaded]:
        end(process)
print("as expected")
"""


def in_namespace(script: str, *arguments: str) -> None:
    """Run a script as the first process of a new PID namespace."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", COMMON + script]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert (done.stdout, done.returncode) == ("as expected\n", 0), done.stderr


def test_processes_of_its_own_and_of_nested_namespaces_have_its_numbers() -> None:
    in_namespace(NESTED)


@pytest.mark.parametrize("tells_last", [None, False], ids=["last thread told", "leader told"])
def test_another_process_with_the_same_id_is_not_taken_for_the_one_before(tells_last: bool | None) -> None:
    in_namespace(REUSED, str(tells_last))


def test_as_many_namespaces_as_can_be_told_apart_at_a_time_and_then_others() -> None:
    in_namespace(MANY)
