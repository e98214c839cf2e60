"""Run as a script in the namespaces and with the rights that a test gives it; prints what Discovery says, as JSON.

`watch PROGRAM...` starts the program and follows it; `reuse PROGRAM...` gives its pid to a second one, which only the
owner of the PID namespace can do; `look PID` looks at a process that is there, once by itself and once when asked to;
`belong PID` tells what it belongs to, by what this environment says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.selection import parse_selection
from gomem.tracer.discovery.workloads import Workloads
from tests.support.discovery.following import Following, following


def started(program: list[str]) -> subprocess.Popen[bytes]:
    """Start a program that waits for its standard input."""
    return subprocess.Popen(program, stdin=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it and wait for it."""
    process.kill()
    process.communicate()


def watch(program: list[str]) -> dict[str, object]:
    """Follow one process from its beginning to its end."""
    discovery = Discovery(settle=0.05, scan_every=0.1)
    with following(discovery) as seen:
        process = started(program)
        found = seen.until_found(process.pid)
        everybody = sorted(seen.found)
        end(process)
        seen.until_gone(found.identity)
        return {"mode": discovery.mode, "reason": discovery.mode_reason, "pid": found.pid, "name": found.name,
                "everybody": everybody}  # fmt: skip


def reuse(program: list[str]) -> dict[str, object]:
    """Let two processes have the same pid, one after the other, between two polls."""
    with following(Discovery(settle=0.0, scan_every=0.0)) as seen:
        first = started(program)
        before = seen.until_found(first.pid)
        end(first)
        time.sleep(0.03)  # start times are in ticks of 10 ms
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        second = started(program)
        try:
            same = second.pid == first.pid
            seen.until(lambda: seen.ended and second.pid in seen.found, "the second is found, the first is gone")
            return {"same_pid": same, "gone_first": seen.ended == [before.identity],
                    "other": seen.found[second.pid].start_ticks > before.start_ticks}  # fmt: skip
        finally:
            end(second)


def look(pid: int) -> dict[str, object]:
    """Look at a process in both ways."""
    discovery = Discovery(settle=0.0, listen=None)
    with following(discovery) as seen:
        seen.poll(0)
    asked = Discovery(parse_selection(pids=[pid]))
    with following(asked) as given:
        given.poll(0)
    return {"unreadable": discovery.unreadable, "found": _told(seen, pid), "asked": _told(given, pid)}


def belong(pid: int) -> dict[str, object]:
    """Tell what a process belongs to."""
    discovery = Discovery(workloads=Workloads.here(label_keys=["app"]), settle=0.0, listen=None)
    with following(discovery) as seen:
        seen.poll(0)
    found = seen.found[pid]
    return {"cgroups": found.cgroups, **asdict(found.workload)}


def _told(seen: Following, pid: int) -> dict[str, object] | None:
    found = seen.found.get(pid)
    return None if found is None else {"kind": found.kind, "name": found.name, "exe": found.exe, "uid": found.uid}


if __name__ == "__main__":
    order, words = sys.argv[1], sys.argv[2:]
    orders = {
        "watch": lambda: watch(words),
        "reuse": lambda: reuse(words),
        "look": lambda: look(int(words[0])),
        "belong": lambda: belong(int(words[0])),
    }
    said = orders[order]()
    print(json.dumps(said | {"own_pid": os.getpid()}))
