"""`gomem serve --black-box`: what is left of a process that the kernel killed, and of whom nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from gomem.exporters.json.schema import validate
from tests.support.black_boxes import boxes, go, hoard
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.pprof import top
from tests.support.processes import wait_until
from tests.support.requirements import absent
from tests.support.rules import broken_rules
from tests.support.serving import serving

NAME = "gomem-black-box"  # of the cgroups, before what makes each another
LIMIT = 96 << 20
SERVE = ("--backend", "procfs", "--interval", "0.5", "--cpu-budget", "1")


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("hoard", "1.25.5", stripped=True)


def said_last(process: subprocess.Popen[bytes]) -> list[int]:
    """Return what a process of tests/targets/hoard says until it ends, as it comes."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout if line.endswith(b"\n")]


def without_log(socket_in: Path) -> list[str]:
    """Return the words that run a command where the kernel's log cannot be opened, as in a container."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(socket_in / "no-log"))
    return ["unshare", "-m", "/bin/sh", "-c", f'mount --bind {socket_in}/no-log /dev/kmsg && exec "$@"', "sh"]


def test_of_a_process_that_the_oom_killer_ends_the_last_state_is_left_and_its_profile_names_the_guilty(
    binary: Path, tmp_path: Path
) -> None:
    directory, blind_directory = tmp_path / "boxes", tmp_path / "blind"
    with ExitStack() as stack:
        group, _ = stack.enter_context(memory_cgroup(NAME, LIMIT))
        twins, _ = stack.enter_context(memory_cgroup(NAME, LIMIT))
        served = stack.enter_context(serving("--cgroup", f"/{NAME}-*", *SERVE, "--black-box", directory))
        blind = stack.enter_context(
            serving("--cgroup", f"/{NAME}-*", *SERVE, "--black-box", blind_directory, under=without_log(tmp_path))
        )
        killed = stack.enter_context(hoard(binary, under=joining(group)))
        ends = stack.enter_context(hoard(binary, "-mb", 12, "-code", 0, under=joining(twins)))
        fails = stack.enter_context(hoard(binary, "-mb", 12, "-code", 3, under=joining(twins)))
        for process in (killed, ends, fails):
            for one in (served, blind):
                one.until(lambda one=one, pid=process.pid: one.followed(pid), "it is followed")  # type: ignore[misc]
        assert served.value("gomem_black_boxes_saved_total") == 0
        for process in (killed, ends, fails):
            go(process)
        said = said_last(killed)
        assert (killed.wait(60), ends.wait(60), fails.wait(60)) == (-signal.SIGKILL, 0, 3)
        for one in (served, blind):
            one.until(lambda one=one: one.value("gomem_black_boxes_saved_total") == 1, "a black box")  # type: ignore[misc]
        log, blind_log = served.log.read_text(), blind.log.read_text()
    (box,), (counted,) = boxes(directory), boxes(blind_directory)
    by_count = {"by": None, "cgroup": f"/{group.name}", "limit": None, "proven": False, "kills": 1}
    assert counted.ended["ending"]["oom"] == by_count
    assert (counted.pid, counted.files) == (box.pid, box.files)
    assert box.path.name.startswith(f"hoard-{killed.pid}-")
    assert str(box.path) in log
    assert f"black boxes: in {blind_directory}; OOM kills are told by the counts of memory cgroups" in blind_log
    assert box.files == {"how-it-ended.json", "report.json", "timeline.json", "heap.pb.gz", "goroutine.pb.gz"}
    assert box.modes == {"drwx------", "-rw-------"}

    ended = box.ended
    assert (ended["kept_for"], ended["ending"]["signal"], ended["ending"]["exit_code"]) == ("oom-kill", "SIGKILL", None)
    by_log = {"by": "cgroup", "cgroup": f"/{group.name}", "limit": LIMIT, "proven": True, "kills": None}
    assert ended["ending"]["oom"] in (by_log, by_count)
    assert ended["process"]["exe"] == str(binary)
    ages = {part["file"]: part["age_seconds"] for part in ended["parts"]}
    assert ages.keys() == box.files - {"how-it-ended.json"}
    assert all(0 <= age < 30 for age in ages.values())
    for part in ended["parts"]:
        taken, noticed = (datetime.fromisoformat(at) for at in (part["taken_at"], ended["noticed_at"]))
        assert abs((noticed - taken).total_seconds() - part["age_seconds"]) < 0.01

    validate(box.report)
    assert not broken_rules(box.report)
    assert box.report["process"]["pid"] == killed.pid
    assert box.report["ending"]["signal"] == "SIGKILL"

    rows = top(str(box.path / "heap.pb.gz"), sample_type="inuse_space", unit="B")
    by_name = {row.name: row.cumulative for row in rows}
    assert max(by_name["main.guilty"], 1) > 3 * by_name.get("main.innocent", 0)
    assert by_name["main.guilty"] > 0.5 * sum(row.flat for row in rows)
    assert 0.3 * said[-1] < by_name["main.guilty"] < 1.5 * said[-1]
    assert any(row.name == "main.main" for row in top(str(box.path / "goroutine.pb.gz")))

    rss = [moment["rss"] for moment in box.moments]
    assert len(rss) >= 5
    third = len(rss) // 3
    assert rss[-1] > LIMIT / 2
    assert min(rss[-third:]) > max(rss[:third])
    assert {moment["cgroup_max"] for moment in box.moments} == {LIMIT}
    assert [moment["at"] for moment in box.moments] == sorted(moment["at"] for moment in box.moments)
    assert box.moments[-1]["gc_cycles"] > 0


def test_a_crash_is_kept_where_that_is_asked_for_and_serve_leaves_nothing_half_written_when_it_ends(
    binary: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        count = 12
        crashing = [stack.enter_context(hoard(binary, "-mb", 2, "-code", 3)) for _ in range(count)]
        asked = stack.enter_context(hoard(binary, "-mb", 2))
        pids = [word for one in (*crashing, asked) for word in ("--pid", one.pid)]
        with serving(*SERVE, *pids, "--black-box", tmp_path / "boxes", "--black-box-crashes") as served:
            for process in (*crashing, asked):
                served.until(lambda pid=process.pid: served.followed(pid), "it is followed")  # type: ignore[misc]
            asked.send_signal(signal.SIGTERM)
            for process in crashing:
                go(process)
            wait_until(lambda: bool(os.listdir(tmp_path / "boxes")), "the first black box")
        found = boxes(tmp_path / "boxes")
    assert 0 < len(found) <= count
    assert {box.pid for box in found} <= {one.pid for one in crashing}
    for box in found:
        assert (box.ended["kept_for"], box.ended["ending"]["exit_code"]) == ("crash", 3)
        assert {part["file"] for part in box.ended["parts"] if not part["missing"]} == box.files - {"how-it-ended.json"}
        assert box.report["process"]["pid"] == box.pid
        assert box.moments


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Have a file system of a few KB at a directory until the block ends."""
    directory.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "none", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        absent("nothing can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_is_told_and_does_no_harm(binary: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk"))
        (disk / "theirs").write_bytes(bytes(8 << 10))
        crashes = stack.enter_context(hoard(binary, "-mb", 2, "-code", 3))
        lives = stack.enter_context(hoard(binary))
        served = stack.enter_context(
            serving(*SERVE, "--pid", crashes.pid, "--pid", lives.pid, "--black-box", disk, "--black-box-crashes")
        )
        for process in (crashes, lives):
            served.until(lambda pid=process.pid: served.followed(pid), "it is followed")  # type: ignore[misc]
        go(crashes)
        served.until(lambda: served.value("gomem_black_boxes_failed_total") == 1, "the failure is counted")
        assert f"process {crashes.pid} (hoard)" in served.log.read_text()
        assert "No space left on device" in served.log.read_text()
        looks = served.value("gomem_looks_total", pid=str(lives.pid)) or 0
        served.until(lambda: (served.value("gomem_looks_total", pid=str(lives.pid)) or 0) > looks, "another look")
        assert [path.name for path in disk.iterdir()] == ["theirs"]
        assert (disk / "theirs").stat().st_size == 8 << 10
        (disk / "theirs").unlink()


def test_a_directory_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "boxes"
    directory.mkdir()
    (directory / "theirs").write_text("")
    directory.chmod(0o777)
    done = gomem("serve", "--listen", "127.0.0.1:0", "--pid", os.getpid(), "--black-box", directory)
    assert "others may write into it" in done.refusal(77)
