"""BPF programs that a child process compiles: what we get of it, what becomes of it, and what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gomem.bpf.bcc_import import RAW_TRACEPOINT
from gomem.bpf.loading import Wanted, load
from gomem.tracer.errors import BackendUnavailable
from tests.support.builds import build
from tests.support.processes import running, state, wait_until, without_capabilities

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
BPF_ARRAY(figures, u64, 4);
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	int key = FIGURE;
	u64 *value = figures.lookup(&key);
	if (value)
		*value = 1;
	return 0;
}
int too_far(struct bpf_raw_tracepoint_args *ctx)
{
	return *(int *)0x1234;
}
"""
ON_EXEC, TOO_FAR = Wanted("on_exec", RAW_TRACEPOINT), Wanted("too_far", RAW_TRACEPOINT)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "good.c"
    path.write_text(GOOD)
    return path


def never_whole(directory: Path) -> Path:
    """Return a source that the compiler waits for: it includes a pipe that nobody writes to."""
    os.mkfifo(directory / "pipe.h")
    source = directory / "endless.c"
    source.write_text(f'#include "{directory}/pipe.h"\n')
    return source


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_programs_and_maps_outlive_the_child_that_made_them(source: Path) -> None:
    before = descriptors()
    loaded = load(source, {"FIGURE": 3}, [ON_EXEC])
    told = Path(f"/proc/self/fdinfo/{loaded.program(ON_EXEC)}").read_text()
    assert "prog_type:\t17" in told
    assert "max_entries:\t4" in Path(f"/proc/self/fdinfo/{loaded.maps['figures']}").read_text()
    assert not any(os.get_inheritable(fd) for fd in [*loaded.maps.values(), *loaded.programs.values()])
    assert len(descriptors() - before) == 2
    loaded.close()
    loaded.close()
    assert descriptors() == before


def test_what_was_compiled_once_is_loaded_without_the_compiler(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(source, {"FIGURE": 3}, [ON_EXEC]).close()
    (entry,) = (tmp_path / "cache/gomem/bpf").iterdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    loaded = load(source, {"FIGURE": 3}, [ON_EXEC])
    assert "prog_type:\t17" in Path(f"/proc/self/fdinfo/{loaded.program(ON_EXEC)}").read_text()
    assert "max_entries:\t4" in Path(f"/proc/self/fdinfo/{loaded.maps['figures']}").read_text()
    loaded.close()
    source.write_text(GOOD.replace("= 1;", "= 2;"))
    for changed, constants, programs, anew in (
        (GOOD.replace("= 1;", "= 2;"), {"FIGURE": 3}, [ON_EXEC], False),
        (GOOD, {"FIGURE": 2}, [ON_EXEC], False),
        (GOOD, {"FIGURE": 3}, [ON_EXEC, TOO_FAR], False),
        (GOOD, {"FIGURE": 3}, [ON_EXEC], True),
    ):
        source.write_text(changed)
        with pytest.raises(BackendUnavailable, match="cannot be started"):
            load(source, constants, programs, anew=anew)
    entry.write_bytes(entry.read_bytes()[:-9])
    with pytest.raises(BackendUnavailable, match="cannot be started"):
        load(source, {"FIGURE": 3}, [ON_EXEC])


def test_a_program_that_need_not_be_there_is_left_out(source: Path) -> None:
    optional = Wanted("too_far", RAW_TRACEPOINT, required=False)
    loaded = load(source, {"FIGURE": 0}, [optional, ON_EXEC])
    assert loaded.program(optional) is None
    assert loaded.program(ON_EXEC) is not None
    loaded.close()


def test_the_words_of_the_compiler_and_of_the_kernel_come_through(source: Path) -> None:
    before = descriptors()
    with pytest.raises(BackendUnavailable, match="does not compile") as refused:
        load(source, {}, [ON_EXEC])
    assert "FIGURE" in refused.value.detail
    with pytest.raises(BackendUnavailable, match="kernel refuses the BPF program too_far"):
        load(source, {"FIGURE": 0}, [ON_EXEC, TOO_FAR])
    with pytest.raises(BackendUnavailable, match=r"missing\.c"):
        load(source.parent / "missing.c", {}, [])
    assert descriptors() == before


def test_a_child_that_dies_at_once_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho out of memory >&2\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    before = descriptors()
    with pytest.raises(BackendUnavailable, match="out of memory"):
        load(source, {}, [ON_EXEC])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(BackendUnavailable, match="cannot be started"):
        load(source, {}, [ON_EXEC])
    assert descriptors() == before


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    endless = never_whole(tmp_path)
    with pytest.raises(BackendUnavailable, match="more than 1 s"):
        load(endless, {}, [ON_EXEC], seconds=1)
    # that no process is left is seen by the check after each test


def test_a_child_does_not_outlive_the_tracer(tmp_path: Path) -> None:
    endless = never_whole(tmp_path)
    program = f"from pathlib import Path\nfrom gomem.bpf.loading import load\nload(Path({str(endless)!r}),"
    tracer = subprocess.Popen([sys.executable, "-c", program + "{}, [])"], cwd=ROOT)
    try:
        wait_until(lambda: any(map(waits_to_open, children_of(tracer.pid))), "the child that opens the source", 120)
        (child,) = children_of(tracer.pid)
    finally:
        tracer.send_signal(signal.SIGKILL)
        tracer.wait()
    wait_until(lambda: not waits_to_open(child), "the end of the child", 120)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits_to_open(pid: int) -> bool:
    """Whether a process sleeps in openat, which it does at a pipe that nobody writes to."""
    try:
        return state(pid) == "S" and Path(f"/proc/{pid}/syscall").read_text().startswith("257 ")
    except OSError:
        return False  # it is gone


def run(script: str, *under: str, arguments: Sequence[object] = ()) -> str:
    """Run a script of ours, and return what it wrote."""
    command = [*under, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_tracer_never_loads_the_compiler() -> None:
    script = """
import os, sys
from gomem.bpf.shared_source import SharedSource
source = SharedSource()
source.start()
source.add(os.getpid())
source.poll(0)
maps = open("/proc/self/maps").read()
print(any(name in maps for name in ("libbcc", "LLVM", "clang")), "bcc" in sys.modules)
"""
    assert run(script) == "False False"


def test_no_file_system_need_be_writable() -> None:
    read_only = "".join(
        f"mount --bind {path} {path} && mount -o remount,bind,ro {path} && " for path in ("/tmp", "/var/tmp")
    )
    command = f'{read_only} export PYTHONPATH="$PWD" && cd /proc && ! touch /tmp/none 2>/dev/null && exec "$@"'
    assert run(REFUSED, "unshare", "--mount", "sh", "-c", command, "sh") == "started"


REFUSED = """
from gomem.bpf.shared_source import SharedSource
from gomem.tracer.errors import GomemError
source = SharedSource()
try:
    source.start()
except GomemError as error:
    print(type(error).__name__, error.exit_code, error.fix)
else:
    source.stop()
    print("started")
"""


def test_without_permission_the_error_names_the_capabilities() -> None:
    told = run(REFUSED, *without_capabilities())
    assert told.startswith("NotPermitted 77")
    assert "CAP_BPF" in told


FOLLOW = """
import sys
from gomem.bpf.shared_source import SharedSource
from tests.support.bpf.sharing import Gathered
from tests.support.bpf.tracing import Binary
from gomem.tracer.events.record import EventKind
pid = int(sys.argv[1])
binary = Binary(f"/proc/{pid}/exe", "1.25.5")
source = SharedSource()
source.start()
source.add(pid, binary.specs())
gathered = Gathered(source)
gathered.until(lambda: {EventKind.GC_DONE, EventKind.MADVISE} <= set(gathered.kinds(pid)), "a collection")
source.stop()
print("followed")
"""


def only(*capabilities: str) -> list[str]:
    """Return the words that run a command with these capabilities and no other."""
    kept = ",".join(f"+{name}" for name in capabilities)
    return ["setpriv", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}", "--"]


def test_three_capabilities_and_no_tracefs_are_enough_to_follow_a_go_program() -> None:
    with running(build("churn", "1.25.5"), "-mb", "24", "-phase", "50ms") as process:
        assert run(FOLLOW, *only("bpf", "perfmon", "sys_ptrace"), arguments=[process.pid]) == "followed"


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
def test_with_one_capability_taken_away_the_error_names_it(missing: str) -> None:
    told = run(REFUSED, *only(*{"bpf", "perfmon", "sys_ptrace"} - {missing}))
    assert told.startswith("NotPermitted 77")
    assert f"CAP_{missing.upper()}" in told
