"""gomem in a real terminal: a window of tmux, of its own server, that is typed into and read."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.command import executable
from tests.support.processes import PATIENCE
from tests.support.requirements import program

_WITHIN = 120.0 * PATIENCE  # seconds
_STATUS = re.compile(r"status=(\d+)")


@dataclass(frozen=True, slots=True)
class Window:
    """One window, with a shell in which gomem runs; when it has ended the shell says `status=N`."""

    name: str

    def tmux(self, *words: str) -> str:
        """Run a command of its server, and return what it says."""
        return subprocess.run(
            ["tmux", "-L", self.name, "-f", "/dev/null", *words], capture_output=True, text=True, check=True
        ).stdout

    def press(self, *keys: str) -> None:
        """Type keys, by tmux's names."""
        self.tmux("send-keys", *keys)

    def screen(self) -> list[str]:
        """Return the lines that are seen now."""
        return self.tmux("capture-pane", "-p").splitlines()

    def until(self, condition: Callable[[list[str]], object], what: str) -> list[str]:
        """Wait until the screen meets a condition, and return it."""
        deadline = time.monotonic() + _WITHIN
        while not condition(shown := self.screen()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {_WITHIN} s; the screen:\n" + "\n".join(shown))
            time.sleep(0.1)
        return shown

    def pid(self) -> int:
        """Return the pid of gomem."""
        shell = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        deadline = time.monotonic() + _WITHIN
        while time.monotonic() < deadline:
            found = subprocess.run(["pgrep", "-P", str(shell), "-f", "gomem"], capture_output=True, text=True).stdout
            if found:
                return int(found.split()[0])
            time.sleep(0.05)
        raise TimeoutError("gomem has not started")

    def status(self) -> int:
        """Wait until gomem has ended, and return its exit status."""
        shown = self.until(lambda lines: _STATUS.search("\n".join(lines)), "the end of gomem")
        found = _STATUS.search("\n".join(shown))
        assert found is not None
        return int(found[1])

    def modes(self) -> str:
        """Return whether the alternate screen and the reporting of the mouse are on, as "0 0" for no."""
        return self.tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag}").strip()


@contextmanager
def window(
    *words: object, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
) -> Iterator[Window]:
    """Run `gomem WORDS` in a window of that size."""
    program("tmux", "tmux")
    made = Window(f"gomem-{uuid.uuid4().hex[:12]}")
    settings = [f"{name}={value}" for name, value in (env or {}).items()]
    command = shlex.join(
        ["env", "-u", "COLUMNS", "-u", "LINES", *settings, executable(), *map(str, words)]
    )  # tmux sets TERM
    shell = (
        f"{command}; echo status=$?; stty -a | tr ';' '\\n' | grep -o -e '-\\?icanon' -e '-\\?echo '; exec sleep 600"
    )
    made.tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "bash", "-c", shell)
    try:
        yield made
    finally:
        subprocess.run(["tmux", "-L", made.name, "kill-server"], capture_output=True, check=False)
