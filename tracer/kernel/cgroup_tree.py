"""The cgroups in a cgroup, and the processes in each: walked through descriptors, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gomem.tracer.kernel.cgroup_bill import read_bill
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.proc.small_files import decimal
from gomem.tracer.report import CgroupBill

MOST_CGROUPS = 4096
MOST_PROCESSES = 32_768
_MOST_DEPTH = 32


@dataclass(slots=True)
class Tree:
    """What is in a cgroup. `pids` maps the processes to their cgroups, as seen from it ("" for itself, "/a/b").

    `bills`: of the cgroups right in it that have the memory controller. `cgroups` counts all, itself included.
    `cut`: there are more than were walked. `unseen`: how many processes are in none of the PID namespaces that we see.
    """

    pids: dict[int, str] = field(default_factory=dict)
    bills: list[CgroupBill] = field(default_factory=list)
    cgroups: int = 0
    cut: bool = False
    unseen: int = 0


def walk(top: Directory, path: str, version: Literal[1, 2]) -> Tree:
    """Return what is in the cgroup `top`, whose path is `path`; what is removed meanwhile is left out."""
    tree = Tree()
    _enter(tree, top, "", path, version)
    return tree


def _enter(tree: Tree, files: Directory, at: str, path: str, version: Literal[1, 2]) -> None:
    tree.cgroups += 1
    for pid in _pids(files):
        if not pid:
            tree.unseen += 1
        elif len(tree.pids) < MOST_PROCESSES:
            tree.pids.setdefault(pid, at)
        else:
            tree.cut = True
    left = MOST_CGROUPS - tree.cgroups
    names = files.names(left + 1)
    if names and at.count("/") >= _MOST_DEPTH:
        tree.cut = True
        return
    for name in sorted(names):
        if tree.cgroups >= MOST_CGROUPS:
            tree.cut = True
            return
        try:
            inner = files.down(name)
        except OSError:
            continue
        with inner:
            if not at and (bill := read_bill(inner, f"{path.rstrip('/')}/{name}", version)) is not None:
                tree.bills.append(bill)
            _enter(tree, inner, f"{at}/{name}", path, version)


def _pids(files: Directory) -> Iterator[int]:
    for line in files.text("cgroup.procs").split("\n"):
        if (pid := decimal(line)) is not None:
            yield pid
