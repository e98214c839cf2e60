from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.recognition import ProgramKind
from gomem.tracer.discovery.selection import Selection, parse_selection
from gomem.tracer.errors import BackendUnavailable, TargetError, TargetGone
from gomem.tracer.kernel.process_events import ProcessEvents
from tests.support.builds import build
from tests.support.discovery.following import Following, following
from tests.support.processes import running, start_ticks, wait_until
from tests.support.requirements import absent

RELEASE = "1.25.5"
SETTLE = 0.05
Make = Callable[..., Discovery]


@pytest.fixture(params=["process connector", "scan"])
def discovery(request: pytest.FixtureRequest) -> Make:
    """Make a Discovery that works in each of the two ways."""

    def make(selection: Selection | None = None, settle: float = SETTLE) -> Discovery:
        if request.param == "scan":
            return Discovery(selection, settle=settle, scan_every=0.1, listen=None)
        try:
            ProcessEvents.open().close()
        except BackendUnavailable as why:
            absent(str(why))
        return Discovery(selection, settle=settle)

    return make


@pytest.fixture(scope="module")
def becomes() -> Path:
    return build("becomes", RELEASE)


def say(process: subprocess.Popen[bytes]) -> None:
    """Let a `becomes` go on."""
    assert process.stdin is not None
    process.stdin.write(b"!")
    process.stdin.flush()


def executed(pid: int, program: str | Path) -> None:
    wait_until(lambda: os.path.samefile(f"/proc/{pid}/exe", program), f"{pid} executes {program}")


def test_go_programs_appear_and_are_gone_and_others_are_not_heard_of(discovery: Make, becomes: Path) -> None:
    with following(discovery()) as seen, running(becomes, "x") as go, running("/bin/sleep", "1000") as other:
        found = seen.until_found(go.pid)
        assert (found.name, found.exe, found.kind) == ("becomes", str(becomes), ProgramKind.GO)
        assert found.start_ticks == start_ticks(go.pid)
        assert found.uid == os.getuid()
        go.kill()
        go.wait()
        seen.until_gone(found.identity)
        # Whoever is looked at is looked at in order of time: the other one has had its turn.
        with running(becomes, "x") as later:
            seen.until_found(later.pid)
        assert other.pid not in seen.found
        assert other.pid not in {identity.pid for identity in seen.ended}


def test_who_was_there_before_us_is_found(discovery: Make, becomes: Path) -> None:
    with running(becomes, "x") as go:
        executed(go.pid, becomes)
        with following(discovery(settle=0.0)) as seen:
            seen.poll(0)
            assert go.pid in seen.found


def test_a_go_program_that_executes_another_program_is_gone(discovery: Make, becomes: Path) -> None:
    with following(discovery()) as seen, running(becomes, "/bin/sleep", "1000") as process:
        found = seen.until_found(process.pid)
        say(process)
        seen.until_gone(found.identity)
        executed(process.pid, "/bin/sleep")
        with running(becomes, "x") as later:
            seen.until_found(later.pid)
        assert process.pid not in seen.found


def test_a_program_that_becomes_a_go_program_appears(discovery: Make, becomes: Path) -> None:
    with following(discovery()) as seen, running("/bin/sh", "-c", f"read order; exec {becomes} x") as process:
        for _ in range(5):
            seen.poll()
        assert process.pid not in seen.found
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert seen.until_found(process.pid).name == "becomes"


def test_the_same_program_executed_again_in_the_same_process_is_another(discovery: Make, becomes: Path) -> None:
    with following(discovery()) as seen, running(becomes, becomes, "x") as process:
        first = seen.until_found(process.pid)
        say(process)
        seen.until_gone(first.identity)
        second = seen.until_found(process.pid)
        assert second.start_ticks == first.start_ticks
        assert second.identity != first.identity
        assert second.exe == first.exe


def test_a_program_that_executes_itself_again_settles_anew(becomes: Path) -> None:
    made = Discovery(settle=0.0, scan_every=0.1, listen=None)
    with following(made) as seen, running(becomes, becomes, "x") as process:
        first = seen.until_found(process.pid)
        made.settle = 3600.0
        say(process)
        seen.until_gone(first.identity)
        for _ in range(5):
            seen.poll()
        assert process.pid not in seen.found
        assert made.waiting > 0


def test_a_deleted_executable_is_still_a_go_program(discovery: Make, becomes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deleted-program"
    shutil.copy(becomes, copy)
    with running(copy, "x") as process:
        executed(process.pid, copy)
        copy.unlink()
        with following(discovery()) as seen:
            found = seen.until_found(process.pid)
            assert (found.exe, found.name, found.kind) == (str(copy), "deleted-program", ProgramKind.GO)


def test_a_process_stays_the_same_when_its_executable_is_replaced(
    discovery: Make, becomes: Path, tmp_path: Path
) -> None:
    program = tmp_path / "upgraded"
    shutil.copy(becomes, program)
    with following(discovery()) as seen, running(program, "x") as old:
        before = seen.until_found(old.pid)
        shutil.copy(becomes, tmp_path / "new")
        (tmp_path / "new").rename(program)
        with running(program, "x") as new:
            after = seen.until_found(new.pid)
            assert seen.found[old.pid].identity == before.identity
            assert before.identity not in seen.ended
            assert after.identity.exe.inode != before.identity.exe.inode
            assert after.exe == before.exe


def test_programs_that_live_shorter_than_the_settling_time_never_appear(discovery: Make) -> None:
    tiny = build("tiny", RELEASE)
    with following(discovery(settle=3600.0)) as seen:
        pids = set()
        for _ in range(20):
            with running(tiny) as process:
                pids.add(process.pid)
                assert process.wait() == 0
            seen.poll(0)
        assert not pids & {identity.pid for identity in seen.ended}
        assert not pids & set(seen.found)


def test_a_crash_loop_leaves_nothing_behind(discovery: Make, becomes: Path) -> None:
    made = discovery()
    with following(made) as seen:
        for _ in range(8):
            with running(becomes, "x") as process:
                found = seen.until_found(process.pid)
                process.kill()
                process.wait()
                seen.until_gone(found.identity)
        assert len(made.recognition) > 0
        seen.until(lambda: not any(one.exe == str(becomes) for one in seen.found.values()), "none is left")


def test_only_those_that_are_selected_appear(discovery: Make, becomes: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted-program"
    shutil.copy(becomes, wanted)
    selection = parse_selection(include={"exe": ["wanted-*"], "uid": [str(os.getuid())]})
    with following(discovery(selection)) as seen, running(becomes, "x") as other, running(wanted, "x") as process:
        seen.until_found(process.pid)
        with running(wanted, "x") as later:
            seen.until_found(later.pid)
        assert other.pid not in seen.found
        assert {one.name for one in seen.found.values()} == {"wanted-program"}


def test_no_more_than_the_most_are_followed_and_room_is_used(discovery: Make, becomes: Path, tmp_path: Path) -> None:
    program = tmp_path / "counted"
    shutil.copy(becomes, program)
    made = Discovery(parse_selection(include={"exe": ["counted"]}), settle=0.0, scan_every=0.1, listen=None,
                     most_targets=1)  # fmt: skip
    with following(made) as seen, running(program, "x") as one, running(program, "x") as two:
        seen.until(lambda: seen.found and made.left_out == 1, "one is followed, one left out")
        (first,) = seen.found.values()
        process = {one.pid: one, two.pid: two}[first.pid]
        process.kill()
        process.wait()
        seen.until_gone(first.identity)
        seen.until_found(({one.pid, two.pid} - {first.pid}).pop())
        assert made.left_out == 0


class TestPidsThatAreGiven:
    def test_any_process_is_followed_and_none_but_it(self, becomes: Path) -> None:
        with running("/bin/sleep", "1000") as process, running(becomes, "x") as other:
            executed(process.pid, "/bin/sleep")
            made = Discovery(parse_selection(pids=[process.pid]), scan_every=0.1)
            with following(made) as seen:
                seen.poll(0)
                assert made.mode == "fixed"
                assert seen.found[process.pid].kind is ProgramKind.NOT_GO
                assert other.pid not in seen.found
                found = seen.found[process.pid]
                process.kill()
                process.wait()
                seen.until_gone(found.identity)
                assert not seen.found

    def test_it_is_followed_from_program_to_program(self, becomes: Path) -> None:
        with running(becomes, "/bin/sleep", "1000") as process:
            executed(process.pid, becomes)
            with following(Discovery(parse_selection(pids=[process.pid]), scan_every=0.1)) as seen:
                first = seen.until_found(process.pid)
                assert first.kind is ProgramKind.GO
                say(process)
                seen.until_gone(first.identity)
                assert seen.until_found(process.pid).kind is ProgramKind.NOT_GO

    def test_it_is_followed_beside_those_that_are_discovered(self, discovery: Make, becomes: Path) -> None:
        with running("/bin/sleep", "1000") as process, running(becomes, "x") as go:
            executed(process.pid, "/bin/sleep")
            with following(discovery(parse_selection(pids=[process.pid], include={"exe": ["becomes"]}))) as seen:
                assert seen.until_found(process.pid).name == "sleep"
                seen.until_found(go.pid)

    def test_gomem_itself_is_followed_if_it_is_asked_to(self) -> None:
        with following(Discovery(parse_selection(pids=[os.getpid()]))) as seen:
            seen.poll(0)
            assert set(seen.found) == {os.getpid()}

    def test_a_process_that_is_not_there_is_an_error_at_once(self) -> None:
        with running("/bin/true") as process:
            process.wait()
            with pytest.raises(TargetGone, match=f"no process {process.pid} here"):
                Discovery(parse_selection(pids=[process.pid])).start()

    def test_a_kernel_thread_is_an_error_at_once(self) -> None:
        with pytest.raises(TargetError, match="kernel thread"):
            Discovery(parse_selection(pids=[2])).start()


def test_descriptors_are_given_back(discovery: Make, becomes: Path) -> None:
    with following(discovery()) as seen, running(becomes, "x") as process:
        seen.until_found(process.pid)
    gc.collect()  # what other tests have left to it
    before = len(os.listdir("/proc/self/fd"))
    made = discovery()
    with following(made) as seen, running(becomes, "x") as process:
        seen.until_found(process.pid)
    made.stop()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_following_holds_discovery_to_its_word(becomes: Path) -> None:
    """The checks of the other tests can fail."""
    with following(Discovery(listen=None, settle=0.0, scan_every=0.1)) as seen, running(becomes, "x") as process:
        found = seen.until_found(process.pid)
        other = Following(seen.discovery)
        process.kill()
        process.wait()
        with pytest.raises(KeyError):
            other.until_gone(found.identity)
