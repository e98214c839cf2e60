"""What the commands that follow many processes share: whom, where their events come from, the newest view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import click

from gomem.bpf.governor import SHARE_FOR_USED
from gomem.bpf.shared_source import SharedSource
from gomem.tracer.cli.options import Command
from gomem.tracer.errors import BackendUnavailable, NotPermitted
from gomem.tracer.fleet.view import FleetView
from gomem.tracer.machine.privileges import Task, drop, limit_resources, needed_for
from gomem.tracer.machine.room import keep_to, usual_budget
from gomem.tracer.report import Limit

Backend = Literal["auto", "bpf", "procfs"]
CONDITIONS = ("exe", "container", "cgroup", "uid", "label")
OPEN_FILES = 1 << 16


@dataclass(frozen=True, slots=True)
class Events:
    """The event source, or None, and why."""

    source: SharedSource | None
    reason: str
    limits: tuple[Limit, ...] = ()


def selection_options(command: Command) -> Command:
    """Add the options that choose processes."""
    helps = {
        "exe": "Follow programs of this name, or of this path if it has a slash (glob; repeatable).",
        "container": "Follow what runs in this container: the beginning of its id, or its Kubernetes name.",
        "cgroup": "Follow what is in this cgroup (glob of the path, for example '/system.slice/*').",
        "uid": "Follow processes of this user id.",
        "label": "Follow pods with this label, or by namespace=, pod=, container=, node= (glob of the value).",
    }
    for kind in reversed(CONDITIONS):
        metavar = "KEY=VALUE" if kind == "label" else kind.upper()
        command = click.option(
            f"--exclude-{kind}", multiple=True, metavar=metavar, help=f"Leave out what --{kind} would choose."
        )(command)
    for kind in reversed(CONDITIONS):
        metavar = "KEY=VALUE" if kind == "label" else kind.upper()
        command = click.option(f"--{kind}", multiple=True, metavar=metavar, help=helps[kind])(command)
    return click.option(
        "--pid", "pids", type=int, multiple=True, metavar="PID", help="Follow this process (repeatable)."
    )(command)


def keep_to_memory(budget: int | None) -> int:
    """Have the kernel keep us to a budget of RSS, bytes (None: the usual one), and return it."""
    budget = usual_budget() if budget is None else budget
    keep_to(budget)
    return budget


def give_up_privileges(events: Events) -> None:
    """Keep only the capabilities that looking at processes takes; uprobes of loaded programs need none since 6.6."""
    tasks = [Task.LOOK]
    if events.source is not None and events.source.backend != "multi":
        tasks.append(Task.ATTACH_BY_PERF_EVENTS)
    limit_resources(OPEN_FILES)
    drop(needed_for(*tasks))


class Newest:
    """The newest view: one thread writes it, any may read it."""

    def __init__(self) -> None:
        self.at_first: Callable[[], None] | None = None  # called once, when a round over all processes is done
        self._view: FleetView | None = None
        self.then: list[Callable[[], None]] = []  # called by the thread that publishes, after it did

    def publish(self, view: FleetView) -> None:
        """Take a new view."""
        self._view = view
        for call in self.then:
            call()
        if self.at_first is not None and view.health.rounds:
            self.at_first()
            self.at_first = None

    def tell(self, take: Callable[[FleetView], None]) -> None:
        """Give the newest view to `take`."""
        if self._view is not None:
            take(self._view)

    def view(self) -> FleetView | None:
        """Return the newest view, None before the first."""
        return self._view


@contextmanager
def started_events(backend: Backend, budget: float, tell: Callable[[str], None]) -> Iterator[Events]:
    """Start the event source that was asked for, or with "auto" the best that works; stop it behind the block.

    `budget`: share of a target's time, see --budget. `tell` gets why there are no events.
    """
    if backend == "procfs":
        yield Events(None, "asked for", (_no_events("asked for: --backend procfs", "use --backend auto"),))
        return
    source = SharedSource(share_for_used=budget * SHARE_FOR_USED)
    try:
        source.start()
    except (BackendUnavailable, NotPermitted) as error:
        if backend == "bpf":
            raise
        why = f"BPF does not work here: {error.what}"
        tell(f"no events: {error.what}; {error.fix}")
        yield Events(None, why, (_no_events(why, error.fix),))
        return
    try:
        yield Events(source, "the best that works here" if backend == "auto" else "asked for")
    finally:
        source.stop()


def _no_events(why: str, fix: str) -> Limit:
    return Limit("no-events-between-looks", "what happens between two looks", why, fix)
