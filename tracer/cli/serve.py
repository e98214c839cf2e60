"""`gomem serve`: follow processes, and serve what is known of them to Prometheus and to people."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from gomem.bpf.syscalls import use_one_heap
from gomem.exporters.black_box.keeper import BoxCollector
from gomem.exporters.http.addresses import DEFAULT_PORT, Address, exposure_warning, parse_address
from gomem.exporters.http.page_routes import MAP
from gomem.exporters.http.profiling import USUAL_SHARE, Profiling
from gomem.exporters.http.server import Server
from gomem.exporters.http.statistics import WebCollector
from gomem.exporters.http.webconfig import WebConfig, load_web_config
from gomem.exporters.otlp.push import PushCollector, open_push
from gomem.exporters.prometheus.catalog import MetricOptions
from gomem.exporters.prometheus.scrape import Scrapes
from gomem.tracer.cli.black_box_options import black_box_options, open_black_box
from gomem.tracer.cli.following import (
    CONDITIONS,
    Backend,
    Newest,
    give_up_privileges,
    keep_to_memory,
    selection_options,
    started_events,
)
from gomem.tracer.cli.options import Percent, Seconds, Size, say, stop_signals
from gomem.tracer.cli.speech import tell_trace
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.selection import parse_selection
from gomem.tracer.discovery.workloads import Workloads
from gomem.tracer.errors import UsageError
from gomem.tracer.fleet.fleet import Fleet, Settings
from gomem.tracer.fleet.history import MOST_BYTES, History
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.machine.room import usual_budget
from gomem.tracer.report import Limit

_FEWEST_SECONDS = 0.1
_SHARE_OF_HISTORY = 16  # of the memory budget, one part in so many


@click.command(short_help="Export the memory of Go processes to Prometheus.")
@click.option(
    "--listen", multiple=True, default=(f"127.0.0.1:{DEFAULT_PORT}",), show_default=True, metavar="ADDRESS",
    help="Where to serve HTTP: HOST:PORT, :PORT for all addresses, or unix:/PATH (repeatable).",
)  # fmt: skip
@selection_options
@click.option(
    "--interval", type=Seconds(), default=15.0, show_default=True, metavar="SECONDS",
    help="How often each process is looked at; more seldom when --cpu-budget is used up.",
)  # fmt: skip
@click.option(
    "--cpu-budget", type=click.FloatRange(0.001, 64), default=0.05, show_default=True, metavar="CPUS",
    help="How much of one CPU gomem may use. Answers to HTTP have 0.05 of their own.",
)  # fmt: skip
@click.option(
    "--budget", type=Percent(), default="1", show_default=True, metavar="PERCENT",
    help="How much of a process's time gomem's probes may take. One probe needs a limit: it tells when the heap takes "
    "back scavenged pages. It gets an eighth of this share; it is taken off when that is spent, and put on again "
    "later.",
)  # fmt: skip
@click.option(
    "--memory-budget", type=Size(), metavar="SIZE",
    help="How much RAM (RSS) gomem may have, such as 170M. Beyond it the processes that take most of that are left "
    "alone for a while, and it says which. By default two thirds of the memory limit that it runs under (cgroup or "
    "machine), at most 2G.",
)  # fmt: skip
@click.option(
    "--max-targets", type=click.IntRange(1, 10_000), default=500, show_default=True,
    help="How many processes are followed at once; more wait, and are counted.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(["auto", "bpf", "procfs"]), default="auto", show_default=True,
    help="bpf sees events and states; procfs sees states only; auto takes bpf where it works.",
)  # fmt: skip
@click.option(
    "--compat", type=click.Choice(["go-collector"]),
    help="Also export the go_* and process_* names of Prometheus' Go client, for programs that export nothing.",
)  # fmt: skip
@click.option(
    "--size-classes/--no-size-classes", default=False, show_default=True,
    help="Export spans, objects and free slots by size class (up to some 400 series more for each process).",
)  # fmt: skip
@click.option(
    "--reports/--no-reports", default=False, show_default=True,
    help="Serve each process's whole report, with its command line, as JSON at /targets/PID/report.json, and the map "
    "of its memory at /targets/PID/map.",
)  # fmt: skip
@click.option(
    "--profiles/--no-profiles", default=False, show_default=True,
    help="Serve profiles of each process at /targets/PID/debug/pprof/, for pprof, Pyroscope and Parca; /sd lists them.",
)  # fmt: skip
@click.option(
    "--profile-cpu-budget", type=click.FloatRange(0.001, 64), default=USUAL_SHARE, show_default=True, metavar="CPUS",
    help="How much of one CPU profiles and memory maps may use, beside --cpu-budget; beyond it the answer is 503.",
)  # fmt: skip
@black_box_options
@click.option(
    "--pod-label", "pod_labels", multiple=True, metavar="KEY",
    help="Export this label of the pods as label_KEY of gomem_process_info (repeatable).",
)  # fmt: skip
@click.option(
    "--kubernetes/--no-kubernetes", default=False, show_default=True,
    help="Ask the Kubernetes API for this node's pods: names, namespaces, labels (needs the extra 'kubernetes').",
)  # fmt: skip
@click.option(
    "--otlp", "otlp_endpoint", metavar="URL",
    help="Also push to an OpenTelemetry collector over OTLP/HTTP (needs the extra 'otlp').",
)  # fmt: skip
@click.option(
    "--otlp-interval", type=Seconds(), default=60.0, show_default=True, metavar="SECONDS",
    help="How often to push.",
)  # fmt: skip
@click.option(
    "--web-config", type=click.Path(dir_okay=False), metavar="FILE",
    help="TLS, client certificates and passwords, in the style of Prometheus' exporters (YAML).",
)  # fmt: skip
def serve(
    listen: tuple[str, ...],
    pids: tuple[int, ...],
    interval: float,
    cpu_budget: float,
    budget: float,
    memory_budget: int | None,
    max_targets: int,
    backend: Backend,
    compat: str | None,
    size_classes: bool,
    reports: bool,
    profiles: bool,
    profile_cpu_budget: float,
    black_box_directory: Path | None,
    black_box_bytes: int,
    black_box_count: int,
    black_box_crashes: bool,
    pod_labels: tuple[str, ...],
    kubernetes: bool,
    otlp_endpoint: str | None,
    otlp_interval: float,
    web_config: str | None,
    **conditions: tuple[str, ...],
) -> None:
    """Follow Go processes and export what is known of them to Prometheus.

    With no choice, all Go processes that can be seen are followed: of a node, or of a pod whose containers share
    their PID namespace. They need no change and no restart.

    \b
        gomem serve --pid 4711
        gomem serve --exe 'checkout*' --listen :9469 --web-config web.yml
        gomem serve --exclude-uid 0 --compat go-collector
    """  # noqa: D301, the mark that click keeps lines by is the character
    if interval < _FEWEST_SECONDS:
        raise UsageError(f"--interval {interval:g}: too often", f"give at least {_FEWEST_SECONDS:g} seconds")
    selection = parse_selection(
        pids=pids,
        include={kind: conditions[kind] for kind in CONDITIONS},
        exclude={kind: conditions[f"exclude_{kind}"] for kind in CONDITIONS},
    )
    addresses = [parse_address(text) for text in listen]
    config = load_web_config(web_config) if web_config is not None else None
    metric_options = MetricOptions(size_classes=size_classes, go_collector=compat is not None)
    newest = Newest()
    workloads = Workloads.here(api=kubernetes, label_keys=[*pod_labels, *selection.label_keys])
    discovery = Discovery(selection, workloads=workloads, most_targets=4 * max_targets)
    scrapes = Scrapes(newest.view, metric_options, _complain)
    newest.then += [scrapes.prepare, _Told(discovery).tell_changes]
    programs = Programs()
    budget_of_memory = usual_budget() if memory_budget is None else memory_budget
    history = History(interval, min(MOST_BYTES, budget_of_memory // _SHARE_OF_HISTORY))
    newest.then.append(lambda: newest.tell(history.take))
    taking = _taking(programs, profile_cpu_budget, profiles=profiles, maps=reports)
    server = Server(
        addresses, newest.view, scrapes.answer, config, reports,
        profiling=taking if profiles else None, history=history, maps=taking, log=say,
    )  # fmt: skip
    scrapes.add(WebCollector(server.statistics))
    push = None
    if otlp_endpoint is not None:
        push = open_push(
            newest.view, otlp_endpoint, interval=otlp_interval, options=metric_options, own_names=True, complain=say
        )
        scrapes.add(PushCollector(push.counts))
    use_one_heap()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        # What needs privileges for a moment comes first; the threads begin when these are given up.
        server.bind()
        stack.callback(server.stop)
        discovery.bind()
        stack.callback(discovery.stop)
        black_box = open_black_box(
            black_box_directory, black_box_bytes, black_box_count, black_box_crashes,
            newest.view, programs, cpu_budget, _complain,
        )  # fmt: skip
        events = stack.enter_context(started_events(backend, budget, say))
        give_up_privileges(events)
        discovery.start()
        if taking is not None:
            taking.start()
            stack.callback(taking.stop)
        if black_box is not None:
            black_box.start()
            stack.callback(black_box.stop)
            newest.then.append(black_box.wake)
            scrapes.add(BoxCollector(black_box.counts))
        server.start()
        workloads.start()
        stack.callback(workloads.stop)
        if push is not None:
            push.start()
            stack.callback(push.stop)
        for address in server.addresses:
            say(f"serving {address}/")
        for warning in filter(None, (_exposure(addresses, config), _reason(discovery))):
            say(warning)
        say(f"events: {'bpf' if events.source else 'none'} ({events.reason}); processes by {discovery.mode}")
        if black_box is not None:
            say(black_box.in_words)
        settings = Settings(
            interval, cpu_budget, max_targets,
            memory_budget=keep_to_memory(budget_of_memory), minds_limits=black_box is not None,
        )  # fmt: skip
        fleet = Fleet(
            discovery,
            events.source,
            events.reason,
            settings,
            newest.publish,
            events.limits,
            complain=_complain,
            serving=lambda: server.cpu_seconds() + (taking.cpu_seconds() if taking is not None else 0.0),
            tell=say,
            programs=programs,
            passing=lambda: any(one.busy for one in (taking, black_box) if one is not None),
        )
        newest.at_first = lambda: _tell_unreadable(discovery)
        # What is there now stays. Looked at again and again it would be most of what collecting garbage costs, and for
        # so much that stays, Python would let a quarter as much garbage gather.
        gc.freeze()
        fleet.run(stop)
    say("stopped")


def _taking(programs: Programs, share: float, *, profiles: bool, maps: bool) -> Profiling | None:
    """Return what takes profiles and maps on request, None where neither is wanted."""
    if not maps:
        return Profiling(programs, _complain, share) if profiles else None
    from gomem.exporters.http.maps import memory_map  # others do not hold what a map takes to import

    return Profiling(programs, _complain, share, {MAP: memory_map})


def _tell_unreadable(discovery: Discovery) -> None:
    if discovery.unreadable:
        count, why = discovery.unreadable, discovery.why_unreadable
        say(f"processes that may not be looked at, Go programs or not: {count}; {why}")


def _exposure(addresses: Sequence[Address], config: WebConfig | None) -> str | None:
    return exposure_warning(addresses, bool(config and config.encrypted), bool(config and config.authenticated))


def _reason(discovery: Discovery) -> str:
    return discovery.mode_reason and f"no process events, so /proc is scanned: {discovery.mode_reason}"


class _Told:
    """Says what cannot be told of where processes belong, whenever that has changed."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._last: tuple[Limit, ...] = ()

    def tell_changes(self) -> None:
        """Say what is new since the last time, and what is well again."""
        limits = self._discovery.limits
        for limit in limits:
            if limit not in self._last:
                say(f"{limit.what}: {limit.why}; {limit.fix}")
        still = {limit.id for limit in limits}
        for limit in self._last:
            if limit.id not in still:
                say(f"{limit.what}: known now")
        self._last = limits


def _complain(pid: int, error: Exception) -> None:
    say(f"failed at process {pid}, which is left alone for a while; please report this:")
    tell_trace(error)
