"""The most memory that a run of gomem takes, under a limit of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.command import executable

# Whoever is executed inherits the peak of who forked it (setmax_mm_hiwater_rss in fs/exec.c): that must be small.
_LAUNCHER = """
import os, resource, sys
pid = os.fork()
if pid == 0:
    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
    os.execv(sys.argv[3], sys.argv[3:])
_, status, usage = os.wait4(pid, 0)
os.write(int(sys.argv[1]), str(usage.ru_maxrss << 10).encode())
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


def peak(*words: object, limit: int) -> tuple[int, str]:
    """Run gomem under a limit of its data segment; return its peak RSS in bytes, and what it wrote."""
    told, tell = os.pipe()
    with open(told, "rb") as peaks:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(tell), str(limit), executable(), *map(str, words)]
        try:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=(tell,)
            )
        finally:
            os.close(tell)
        text, _ = process.communicate()
        assert process.returncode == 0, text
        assert "Traceback" not in text
        return int(peaks.read()), text
