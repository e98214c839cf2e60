"""Targets that do what letters on their standard input tell them, and answer in lines."""

from __future__ import annotations

import subprocess


class Commands:
    """Tells a target what to do."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def say(self, command: str) -> None:
        """Give a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode())
        self.process.stdin.flush()

    def line(self) -> str:
        """Return the next line of what it answers."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def do(self, command: str) -> None:
        """Give a command, and wait until it has been carried out."""
        self.say(command)
        assert self.line() == "done"
