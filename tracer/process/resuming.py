"""Whether seccomp filters let the kernel resume a sleep after a stop; our own, which our children inherit, is tried."""

from __future__ import annotations

import platform
import subprocess
import sys

UNDER_A_FILTER = "it is under a seccomp filter, which may end it for restart_syscall, as the kernel resumes a sleep"
STOP_FILTERED = (
    "if its filter allows restart_syscall (the default profiles of Docker, containerd, CRI-O and systemd do): "
    "--stop-filtered"
)
_RESTART_SYSCALL = {"x86_64": 219, "aarch64": 128}.get(platform.machine())
# A filter may end whoever makes the call. Who has no sleep to resume gets EINTR (kernel/signal.c).
_CALL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(libc.syscall(int(sys.argv[1])) != -1 or ctypes.get_errno() != errno.EINTR)
"""
_SECONDS = 30.0


def own_children_resume() -> bool:
    """Try it in a process of our own."""
    if _RESTART_SYSCALL is None:
        return False
    command = [sys.executable, "-I", "-S", "-c", _CALL, str(_RESTART_SYSCALL)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
