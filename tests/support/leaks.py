"""What a test run must not leave behind: processes, mounts, BPF programs and links.

A run puts a mark of its own into its environment, so that every descendant is known by it, also an orphan.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MARK = "GOMEM_TEST_RUN"

Processes = dict[tuple[int, int], str]  # names by pid and start time


@dataclass(frozen=True, slots=True)
class Traces:
    """What of a run can be seen on the machine now."""

    processes: Processes
    mounts: frozenset[str]
    bpf: frozenset[str]

    def left_since(self, before: Traces) -> list[str]:
        """Return one line for each thing that is here and was not `before`."""
        return sorted(
            [f"process {one}" for one in new(self.processes, before.processes)]
            + [f"mount {one}" for one in self.mounts - before.mounts]
            + [f"BPF object {one}" for one in self.bpf - before.bpf]
        )


def traces() -> Traces:
    """Look around. Needs MARK in the environment since before the first child was started."""
    return Traces(marked_processes(), _mounts(), _bpf_objects())


def marked_processes() -> Processes:
    """Return each process but this one that is its child or carries this run's mark, zombies of ours included.

    A child that executes a program just now may not have its environment and its new name yet.
    """
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
            name, _, rest = stat.partition("(")[2].rpartition(")")
            fields = rest.split()
            ours = int(fields[1]) == os.getpid() or (
                fields[0] != "Z" and mark in (entry / "environ").read_bytes().split(b"\0")
            )
        except OSError:
            continue  # it ended meanwhile
        if ours:
            found[int(entry.name), int(fields[19])] = name
    return found


def new(processes: Processes, before: Processes) -> list[str]:
    """Return "pid (name)" of each process that was not there before."""
    return [f"{pid} ({name})" for (pid, start), name in sorted(processes.items()) if (pid, start) not in before]


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return frozenset(f"{line.split()[4]} ({line.split(' - ')[1].split()[0]})" for line in lines)


def _bpf_objects() -> frozenset[str]:
    found = set()
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in ("prog_id", "link_id"):
                found.add(f"{name} {value.strip()}")
    pinned = Path("/sys/fs/bpf")
    if pinned.is_dir():
        found.update(str(path) for path in pinned.rglob("*"))
    return frozenset(found)
