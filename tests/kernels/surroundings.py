"""Surroundings in which people run gomem, that forbid something whatever capabilities it has."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels.guest import IN_MACHINE
from tests.support.debian import unpacked
from tests.support.under_seccomp import for_container

ROOT = Path(__file__).parents[2]
OURS = ROOT / "deploy" / "seccomp" / "gomem.json"
PROFILES = "golang-github-containers-common"  # Debian's package with the profile of podman, CRI-O and buildah
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_READ_ONLY = """\
for at in $(cut -d' ' -f5 /proc/self/mountinfo); do mount -o remount,bind,ro "$at" 2>/dev/null || :; done
! (: >/tmp/gomem-may-not) 2>/dev/null || exit 70
exec "$@"
"""
_HIDDEN = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'


@dataclass(frozen=True, slots=True)
class Surrounding:
    """How a command gets into it, and with which words gomem may tell that it forbids something.

    `words`: of the capabilities that the command is going to have, and a directory to write into.
    """

    words: Callable[[frozenset[str], Path], AbstractContextManager[list[str]]]
    names: tuple[str, ...] = ()


def _always(*words: str) -> Callable[[frozenset[str], Path], AbstractContextManager[list[str]]]:
    @contextmanager
    def given(has: frozenset[str], directory: Path) -> Iterator[list[str]]:
        yield list(words)

    return given


def _apart(script: str) -> Callable[[frozenset[str], Path], AbstractContextManager[list[str]]]:
    """Run a script in a mount namespace of its own, which executes the command."""
    return _always("unshare", "--mount", "--propagation=private", "--", "sh", "-c", script, "sh")


@contextmanager
def _by_default(has: frozenset[str], directory: Path) -> Iterator[list[str]]:
    """Put the command under the profile that container engines have where none is asked for."""
    profile = json.loads((unpacked(PROFILES) / "usr/share/containers/seccomp.json").read_text())
    file = directory / "seccomp.json"
    file.write_text(json.dumps(for_container(profile, has)))
    yield _under(file)


@contextmanager
def _under_ours(has: frozenset[str], directory: Path) -> Iterator[list[str]]:
    yield _under(OURS)


def _under(profile: Path) -> list[str]:
    return [sys.executable, "-m", "tests.support.under_seccomp", str(profile), "/usr/bin/env"]


@contextmanager
def _locked_down(has: frozenset[str], directory: Path) -> Iterator[list[str]]:
    """Lock the kernel down as its parameter lockdown=integrity does: until the machine ends, so in a virtual one."""
    if IN_MACHINE not in os.environ:
        pytest.skip("this would lock down the machine")
    if not _LOCKDOWN.exists():
        pytest.skip("the kernel has no lockdown")
    if "[none]" in _LOCKDOWN.read_text():
        _LOCKDOWN.write_text("integrity")
    assert "[integrity]" in _LOCKDOWN.read_text()
    yield []


_SECCOMP = ("seccomp filter forbids",)
SURROUNDINGS = {
    "no_new_privs": Surrounding(_always("setpriv", "--no-new-privs", "--")),
    "nothing writable": Surrounding(_apart(_READ_ONLY)),
    "/proc with hidepid=2": Surrounding(_apart(_HIDDEN)),
    "seccomp: deploy/seccomp/gomem.json": Surrounding(_under_ours, _SECCOMP),
    "seccomp: the default of podman": Surrounding(_by_default, _SECCOMP),
    "lockdown=integrity": Surrounding(_locked_down, ("locked down",)),  # the last one: it stays
}
