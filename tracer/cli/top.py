"""`gomem top`: all Go processes, live, on the terminal."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack

import click

from gomem.bpf.syscalls import use_one_heap
from gomem.exporters.output import write_output
from gomem.exporters.top.terminal import check_terminal, quiet_errors
from gomem.tracer.cli.following import (
    CONDITIONS,
    OPEN_FILES,
    Backend,
    Newest,
    keep_to_memory,
    selection_options,
    started_events,
)
from gomem.tracer.cli.options import Percent, Seconds
from gomem.tracer.cli.speech import tell
from gomem.tracer.cli.top_engine import FollowedProcesses
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.selection import Selection, parse_selection
from gomem.tracer.discovery.workloads import Workloads
from gomem.tracer.errors import GomemError
from gomem.tracer.fleet.fleet import Fleet, Settings
from gomem.tracer.fleet.view import FleetView
from gomem.tracer.machine.privileges import limit_resources

_MOST_TARGETS = 500
_LOOK_EVERY = 2.0  # seconds between whole looks at a process, where the budget has room for that
_ONCE_WITHIN = 60.0
_FEWEST_SECONDS = 0.2


@click.command(short_help="Show all Go processes, live, in the terminal.")
@selection_options
@click.option(
    "--delay", type=Seconds(), default=1.0, show_default=True, metavar="SECONDS",
    help="How often RSS, live heap, garbage and collections of each process are read. Whole looks come as often as "
    "--cpu-budget allows, but no more often than every 2 seconds.",
)  # fmt: skip
@click.option(
    "--cpu-budget", type=click.FloatRange(0.001, 64), default=0.05, show_default=True, metavar="CPUS",
    help="How much of one CPU gomem may use, the screen included.",
)  # fmt: skip
@click.option(
    "--budget", type=Percent(), default="1", show_default=True, metavar="PERCENT",
    help="How much of a process's time gomem's probes may take, as of gomem serve.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(["auto", "bpf", "procfs"]), default="auto", show_default=True,
    help="bpf sees events and states; procfs sees states only; auto takes bpf where it works.",
)  # fmt: skip
@click.option(
    "--once", is_flag=True,
    help="Print the table once, when each process has been looked at, and end. Nothing is attached for it.",
)  # fmt: skip
def top(
    pids: tuple[int, ...],
    delay: float,
    cpu_budget: float,
    budget: float,
    backend: Backend,
    once: bool,
    **conditions: tuple[str, ...],
) -> None:
    """Show the memory of all Go processes, a row each, and go into one of them with Enter.

    The processes need no change and no restart. F1 shows the keys and what the columns mean. Nothing is attached but
    the probes of gomem serve, and nothing is left behind, however gomem ends.

    \b
        gomem top
        gomem top --pid 4711 --pid 4712
        gomem top --label namespace=shop
        gomem top --once
    """  # noqa: D301, the mark that click keeps lines by is the character
    if not once:
        check_terminal()
    if delay < _FEWEST_SECONDS:
        raise click.BadParameter(f"{delay:g}: too often; give at least {_FEWEST_SECONDS:g} seconds")
    selection = parse_selection(
        pids=pids,
        include={kind: conditions[kind] for kind in CONDITIONS},
        exclude={kind: conditions[f"exclude_{kind}"] for kind in CONDITIONS},
    )
    use_one_heap()
    settings = Settings(
        _LOOK_EVERY, cpu_budget, _MOST_TARGETS, memory_budget=keep_to_memory(None), glance_every=delay,
        latest_events=True,
    )  # fmt: skip
    with ExitStack() as stack:
        if not once:
            stack.enter_context(quiet_errors())
        followed = _follow(stack, selection, settings, "procfs" if once else backend, budget)
        if once:
            _print_once(followed)
        else:
            from gomem.exporters.top.app import Top  # textual takes 0.3 s to import

            screen = Top(followed)
            screen.run()
            followed.error = followed.error or screen.failed
    if followed.error is not None:
        raise followed.error


def _follow(
    stack: ExitStack, selection: Selection, settings: Settings, backend: Backend, budget: float
) -> FollowedProcesses:
    """Begin to follow; ends with the stack."""
    newest = Newest()
    workloads = Workloads.here(api=False, label_keys=selection.label_keys)
    discovery = Discovery(selection, workloads=workloads, most_targets=4 * settings.most_targets)
    discovery.bind()
    stack.callback(discovery.stop)
    followed = FollowedProcesses(newest, discovery)
    events = stack.enter_context(started_events(backend, budget, followed.say))
    limit_resources(OPEN_FILES)
    discovery.start()
    workloads.start()
    stack.callback(workloads.stop)
    fleet = Fleet(
        discovery, events.source, events.reason, settings, newest.publish, events.limits,
        complain=lambda pid, error: followed.say(f"failed at process {pid}: {type(error).__name__}: {error}"),
        tell=followed.say, opened=followed.opened,
    )  # fmt: skip
    gc.freeze()  # see `gomem serve`
    stack.callback(followed.stop)
    followed.start(fleet)
    return followed


def _print_once(followed: FollowedProcesses) -> None:
    from gomem.exporters.top.once import table_once

    deadline = time.monotonic() + _ONCE_WITHIN
    view: FleetView | None = None
    while time.monotonic() < deadline and not followed.over:
        view = followed.view()
        if view is not None and view.health.rounds:
            break
        time.sleep(0.05)
    if followed.error is not None:
        raise followed.error
    if view is None:
        raise GomemError("no process could be looked at within a minute")
    if not view.health.rounds:
        tell("gomem: not every process could be looked at within a minute")
    write_output(table_once(view, followed.unreadable()), None)
