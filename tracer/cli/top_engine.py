"""What is behind the screen of `gomem top`: a fleet in a thread of its own, and what is written into files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from gomem.exporters.output import write_output
from gomem.exporters.units import plural
from gomem.tracer.cli.following import Newest
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.errors import GomemError
from gomem.tracer.fleet.fleet import Fleet
from gomem.tracer.fleet.view import FleetView, TargetView
from gomem.tracer.report.memory_map import Moment, Picture

_JOIN = 20.0  # seconds that the fleet may take to let go of all processes
_END_OF_RECORDING = 20.0
_PR_SET_PDEATHSIG = 1
# The recorder ends, and its file is whole, also when we are killed.
_RECORDER = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGINT)}, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv.pop()): sys.exit(1)\n"
    "from gomem.tracer.cli import main\n"
    "main()\n"
)


class FollowedProcesses:
    """Follows processes in a thread, and does for the screen what it asks for. It is never waited for there."""

    def __init__(self, newest: Newest, discovery: Discovery) -> None:
        self._newest = newest
        self._discovery = discovery
        self._opened: int | None = None
        self._said = ""
        self._stop = threading.Event()
        self._recorders: dict[int, tuple[subprocess.Popen[bytes], str]] = {}
        self._ending: set[int] = set()  # whose recordings have been told to end
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None  # that has ended the thread

    # For the thread of the screen

    def start(self, fleet: Fleet) -> None:
        """Begin to follow."""

        def run() -> None:
            try:
                fleet.run(self._stop.is_set)
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run, name="gomem-fleet", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let go of all processes, and end the recordings."""
        self._stop.set()
        for pid, (recorder, _) in self._recorders.items():
            if pid not in self._ending:
                recorder.send_signal(signal.SIGINT)
        until = time.monotonic() + _END_OF_RECORDING
        for recorder, _ in self._recorders.values():
            _ended(recorder, max(until - time.monotonic(), 0.0))
        self._recorders.clear()
        if self._thread is not None:
            self._thread.join(_JOIN)

    @property
    def over(self) -> bool:
        """Whether nobody follows any more."""
        return self._thread is not None and not self._thread.is_alive()

    def view(self) -> FleetView | None:
        """Return the newest view."""
        return self._newest.view()

    def news(self) -> str:
        """Return the last thing that there was to tell."""
        for pid, (recorder, path) in list(self._recorders.items()):
            if recorder.poll() is not None:
                del self._recorders[pid]
                self._ending.discard(pid)
                self._said = f"the recording of process {pid} has ended: {_last_words(recorder, path)}"
        return self._said

    def unreadable(self) -> str:
        """Say how many processes may not be looked at, and why."""
        count = self._discovery.unreadable
        if not count:
            return ""
        who = plural(count, "process", "processes")
        return f"{who} may not be looked at, Go programs or not: {self._discovery.why_unreadable}"

    def open(self, pid: int | None) -> None:
        """Have a process looked at closely."""
        self._opened = pid

    def record(self, target: TargetView) -> None:
        """Begin to record a process by `gomem record`, or end that."""
        pid = target.pid
        if pid in self._recorders:
            if pid not in self._ending:  # a second signal would cut the file
                self._ending.add(pid)
                self._recorders[pid][0].send_signal(signal.SIGINT)
            self.say(f"ending the recording of process {pid}")
            return
        path = f"gomem-{pid}-{time.strftime('%H%M%S')}.rec"
        words = ["record", "--pid", str(pid), "-o", path, str(os.getpid())]
        try:
            recorder = subprocess.Popen(
                [sys.executable, "-P", "-c", _RECORDER, *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.say(f"process {pid} cannot be recorded: {error.strerror}")
            return
        self._recorders[pid] = recorder, path
        self.say(f"recording process {pid} into {path}; r ends it")

    def write(self, target: TargetView) -> None:
        """Write the report of a process, and its map if it is opened, as one page."""
        if target.report is None:
            self.say(f"there is no report of process {target.pid} yet")
            return
        from gomem.exporters.memory_map.page import map_page  # jinja2 takes 20 ms to import

        path = f"gomem-{target.pid}-{time.strftime('%H%M%S')}.html"
        close_up = target.close_up
        shown = close_up.map.what if close_up is not None else None
        moments = [Moment(0.0, shown)] if shown is not None else []
        goroutines = close_up.goroutines.what if close_up is not None else None
        try:
            write_output(map_page(target.report, Picture(moments, goroutines=goroutines)), path)
        except (GomemError, OSError) as error:
            self.say(error.in_one_line() if isinstance(error, GomemError) else str(error))
            return
        self.say(f"written: {path}")

    # For any thread

    def opened(self) -> int | None:
        """Return the process that is looked at closely."""
        return self._opened

    def say(self, text: str) -> None:
        """Tell the person."""
        self._said = text


def _ended(recorder: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a recorder that was told to end, and kill it if it does not."""
    with suppress(subprocess.TimeoutExpired):
        recorder.wait(seconds)
    if recorder.poll() is None:
        recorder.kill()
        recorder.wait()
    if recorder.stderr is not None:
        recorder.stderr.close()


def _last_words(recorder: subprocess.Popen[bytes], path: str) -> str:
    """Return what a recorder that has ended had to say."""
    assert recorder.stderr is not None
    with recorder.stderr as said:
        lines = said.read(1 << 14).decode(errors="replace").splitlines()
    if recorder.returncode == 0:
        return f"gomem replay {path}"
    return next(
        (line.removeprefix("gomem: ") for line in reversed(lines) if line.strip()), f"status {recorder.returncode}"
    )
