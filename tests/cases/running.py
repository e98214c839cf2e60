"""Running a case: its program, `gomem why`, and whether that decides it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cases.case import NEWEST, Case
from tests.support.builds import BuildFailed, Mode, built
from tests.support.command import executable
from tests.support.debian import unpacked
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.ports import free_port

CGO: Final[Mode] = "cgo"
EXE: Final[Mode] = "exe"
_DIRECTORY = "GOMEM_CASES_DIRECTORY"  # that a case's files are in: on a disk, if there is one


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of a case. `wrong`: why it is not decided; "" if it is."""

    verdict: str
    found: tuple[str, ...]
    wrong: str
    seconds: float


def run(case: Case, release: str = NEWEST, *, stripped: bool = False) -> Answer:
    """Run a case, its program built by Go `release`; what fails is told in the answer."""
    began = time.monotonic()
    try:
        with program_running(case, program_of(case, release, stripped=stripped)) as pid:
            said = ask(pid, case.watch)
            for times in (2, 4, 8):  # a busy machine has too few looks in a short time
                if not case.watch or not _wrong(case, said) or (times > 2 and not _untold(said)):
                    break
                said = ask(pid, times * case.watch)
    except (OSError, RuntimeError, BuildFailed, subprocess.SubprocessError) as error:
        return Answer("", (), f"it did not run: {error}", time.monotonic() - began)
    found = tuple(name for one in said["judgements"] for name in one["findings"])
    return Answer(said["verdict"], found, _wrong(case, said), time.monotonic() - began)


def _untold(said: dict[str, Any]) -> bool:
    """Tell whether there were too few looks to see growth."""
    return any(one["outcome"] == "not-told" and ("watch" in one["sentence"]) for one in said["judgements"])


def run_healthy(package: str) -> Answer:
    """Run a server that is well; whatever warns is wrong."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="gomem-") as directory, _server(package, Path(directory)) as pid:
            said = ask(pid, 3.0)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Answer("", (), f"it did not run: {error}", time.monotonic() - began)
    found = tuple(name for one in said["judgements"] for name in one["findings"])
    warns = [one["id"] for one in said["findings"] if one["severity"] != "info"]
    wrong = f"it warns of {', '.join(warns)}" if warns else ""
    return Answer(said["verdict"], found, wrong, time.monotonic() - began)


def ask(pid: int, seconds: float) -> dict[str, Any]:
    """Return what `gomem why` says of a process."""
    words = [executable(), "why", str(pid), "-d", str(seconds), "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _wrong(case: Case, said: dict[str, Any]) -> str:
    """Return why it is not decided: the verdict is another, or something else warns."""
    causes = [one for one in said["judgements"] if one["outcome"] == "it-is"]
    found = {name for one in causes for name in one["findings"]}
    wanted = set(case.finds)
    if not found & wanted:
        return f"{' or '.join(case.finds)} is not found"
    acts = [one for one in causes if not one["harmless"]]
    if case.harmless and acts:
        return f"it is harmless, and {acts[0]['findings'][0]} asks for something"
    if not case.harmless and not (acts and wanted & set(acts[0]["findings"])):
        return f"the verdict is {acts[0]['findings'][0]}" if acts else "it is called harmless"
    allowed = wanted | set(case.also)
    warns = [one["id"] for one in said["findings"] if one["severity"] != "info" and one["id"] not in allowed]
    if warns:
        return f"it also warns of {', '.join(warns)}"
    told = " ".join(
        f"{one['title']} {one['explanation']} {one['action']}" for one in said["findings"] if one["id"] in wanted
    )
    return "" if case.words in told else f"it does not name {case.words!r}"


def program_of(case: Case, release: str, *, stripped: bool = False) -> Path:
    """Return the program of a case, built by Go `release`, or by the nearest that has it as the thread does."""
    with_it = max(release, case.since or release, key=_numbers)
    with_it = min(with_it, case.until or with_it, key=_numbers)
    target, mode = ("ccases", CGO) if case.cgo else ("cases", EXE)
    return built(target, with_it, mode=mode, stripped=stripped)


def is_one_on(case: Case, release: str) -> bool:
    """Tell whether a program that Go `release` built is as the thread has it."""
    first, last = case.since or release, case.until or release
    return _numbers(first) <= _numbers(release) <= _numbers(last)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in release.split(".")]


@contextmanager
def program_running(case: Case, path: Path) -> Iterator[int]:
    """Run a case's program until the block ends; the block begins when it is as the thread has it."""
    if case.cgroup is None:
        with _running([str(path), case.program], case) as pid:
            yield pid
        return
    with (
        memory_cgroup("gomem-case", case.cgroup) as (directory, _),
        _running([*joining(directory), str(path), case.program], case) as pid,
    ):
        yield pid


@contextmanager
def _running(words: list[str], case: Case) -> Iterator[int]:
    with tempfile.TemporaryDirectory(prefix="gomem-", dir="/var/tmp") as directory:
        env = {**os.environ, _DIRECTORY: directory, **case.env}
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the program ended: {process.wait()}")
            if case.room is not None:
                size = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                limit = size + case.room
                resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
            yield process.pid
        finally:
            process.kill()
            process.communicate()


@contextmanager
def _server(package: str, directory: Path) -> Iterator[int]:
    """Run a server of Debian until the block ends, with nothing to do; it has had some seconds to start."""
    port, peer = free_port(), free_port()
    words = {
        "prometheus": ["usr/bin/prometheus", f"--web.listen-address=127.0.0.1:{port}",
                       f"--storage.tsdb.path={directory}", f"--config.file={directory}/prometheus.yml"],
        "etcd": ["usr/bin/etcd", f"--data-dir={directory}", f"--listen-client-urls=http://127.0.0.1:{port}",
                 f"--advertise-client-urls=http://127.0.0.1:{port}", f"--listen-peer-urls=http://127.0.0.1:{peer}"],
        "prometheus-node-exporter": ["usr/bin/prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"],
    }[package]  # fmt: skip
    (directory / "prometheus.yml").write_text("global:\n  scrape_interval: 15s\n")
    root = unpacked({"etcd": "etcd-server"}.get(package, package))
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([str(root / words[0]), *words[1:]], stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        time.sleep(3)
        if process.poll() is not None:
            raise RuntimeError(f"{package} ended with {process.returncode}")
        yield process.pid
    finally:
        process.kill()
        process.wait()
