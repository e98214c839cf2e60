"""What is on the dashboards: queries on the metrics of docs/metrics.md, and what each teaches. RAM leads on each."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.choice import (
    BELONGS,
    PLACE,
    PROCESS,
    TRACERS,
    Chosen,
    by,
    kills,
    pid,
    total,
    tracers,
    workload,
)
from deploy.grafana.choice import process as process_choice
from deploy.grafana.leading import ROW_TO_PAGE, ROW_TO_PROCESS, ROW_TO_WORKLOAD, marks
from deploy.grafana.panels import (
    NEAR_A_LIMIT,
    NONE_IS_MUST,
    NONE_IS_WELL,
    Panel,
    Query,
    arrange,
    board,
    lines,
    number,
    rows,
    states,
)
from deploy.grafana.shared import (
    KEPT,
    OF_CGROUP,
    OF_PLACE,
    SEVERITIES,
    alert_rows,
    finding_rows,
    places,
    share,
    top,
    worst,
)
from deploy.grafana.workload import over_restarts

# One process of one tracer: its restarts are the same series, another job that scrapes it is another one.
_ONE = "job, instance, process"


def _states(chosen: Chosen, labels: str) -> list[Query]:
    """Return the address space by the runtime's state."""
    names = {"ready": "Ready", "prepared": "Prepared", "reserved": "Reserved", "unmanaged": "not the runtime's"}
    return [
        Query(by(labels, chosen.series("gomem_virtual_bytes", f'state="{state}"')), name)
        for state, name in names.items()
    ]


def _resident_pages(chosen: Chosen, labels: str) -> list[Query]:
    """Return what of the heap is in RAM, by the runtime's state, and what else is."""
    names = {
        "in_use": "in use",
        "stacks": "goroutine stacks",
        "work_bufs": "work buffers",
        "free": "free, kept",
        "scavenged": "scavenged, still resident",
    }
    queries = [
        Query(by(labels, chosen.series("gomem_heap_page_bytes", f'state="{state}", residency="resident"')), name)
        for state, name in names.items()
    ]
    return [*queries, Query(by(labels, chosen.series("gomem_resident_bytes", 'kind!="heap_arena"')), "everything else")]


def overview() -> dashboard.Dashboard:
    """Show many processes: which of them hold memory, and what for."""
    made = board(
        "gomem-overview", "gomem: Go processes", "Where the memory of many Go processes is: in RAM, in use, kept.",
        [*tracers(), *workload(), process_choice()],
    )  # fmt: skip
    some = Chosen()
    used, limit = (some.series(f"gomem_memory_limit{what}_bytes") for what in ("_usage", ""))
    panels: list[Panel] = [
        number("In RAM", "Resident memory of all chosen processes (RSS).",
               total(some.series("gomem_process_resident_bytes")), unit="bytes"),
        number("Heap in use", "Heap pages that hold objects.",
               total(some.series("gomem_heap_page_bytes", 'state="in_use"')), unit="bytes"),
        number("Free heap in RAM", "Free pages that the runtimes keep for reuse: what could be given back at once.",
               total(some.series("gomem_heap_page_bytes", KEPT)), unit="bytes"),
        number("Processes", "Processes that are followed, with or without their runtime.",
               total(some.series("gomem_process_state", 'state=~"followed|kernel_only"'))),
        number("Findings", "Warnings and critical findings that hold now; gomem snapshot --pid says each in words.",
               total(some.series("gomem_finding_active", 'severity!="info"')) + " or vector(0)",
               levels=NONE_IS_WELL),
        number("Kills", "Processes of their containers or cgroups that the kernel killed for want of memory, in the "
               "time that is shown; also those of pods that no followed container was seen to have.",
               total(kills()), levels=NONE_IS_MUST),
        lines("What is in RAM", "Orange is kept for reuse; red was given back and not taken by the kernel yet "
              "(MADV_FREE, huge pages).", _resident_pages(some, "job"), stacked=True),
        places("RSS, the ten largest", "Resident memory; a container that starts anew is the same line.",
                by(PLACE, some.series("gomem_process_resident_bytes"))),
        finding_rows(some),
        alert_rows(),
        states("The worst finding", "How bad the worst finding of each process is, over its restarts.",
               Query(f"topk(20, {worst(some, PLACE)})", OF_PLACE), SEVERITIES),
        rows("Processes", "The newest figures of each process.",
             [Query(some.series("gomem_process_resident_bytes", labels=f"go_version, {BELONGS}, node")),
              Query(by(PROCESS, some.series("gomem_heap_page_bytes", 'state="in_use"'))),
              Query(by(PROCESS, some.series("gomem_heap_page_bytes", KEPT))),
              Query(by(PROCESS, some.series("gomem_heap_live_bytes"))),
              Query(by(PROCESS, some.series("gomem_heap_goal_bytes"))),
              Query(by(PROCESS, some.series("gomem_process_virtual_bytes")))],
             renamed={"Value #A": "RSS", "Value #B": "in use", "Value #C": "free, in RAM", "Value #D": "live",
                      "Value #E": "goal", "Value #F": "VSZ", "go_version": "Go"},
             units=dict.fromkeys(("RSS", "in use", "free, in RAM", "live", "goal", "VSZ"), "bytes"),
             hidden=("__name__",), unseen=("job",), height=10,
             links={"process": [ROW_TO_PROCESS.built(), ROW_TO_WORKLOAD.built()], "pid": [ROW_TO_PAGE.built()]}),
        places("Free heap in RAM, the ten largest", "Retained memory: the background scavenger returns it slowly, "
                "debug.FreeOSMemory at once.", by(PLACE, some.series("gomem_heap_page_bytes", KEPT))),
        places("C heap and other memory", "RAM that is not the Go runtime's: malloc of cgo, mmap by hand. pprof does "
                "not see it.", by(PLACE, some.series("gomem_resident_bytes", 'kind=~"c_heap|other"'))),
        lines("Share of the container's limit", "What the kernel cannot take back, as a share of the limit of the "
              "container or cgroup; at 1 the OOM killer comes.",
              [top(share(some), OF_CGROUP)], unit="percentunit", levels=NEAR_A_LIMIT),
        places("Share of GOMEMLIMIT", "What the limit is held against, as a share of it. Near 1 the collector runs "
                "all the time.", f"max by ({PLACE}) ({used}) / max by ({PLACE}) ({limit})",
                unit="percentunit", levels=NEAR_A_LIMIT),
        places("Collections", "GC cycles a second.", by(PLACE, some.rate("gomem_gc_cycles_total")), unit="cps"),
        lines("Given back to the kernel", "Bytes a second that the scavengers gave back, by who asked.",
              [Query(by("source", some.rate("gomem_scavenged_bytes_total")), "{{source}}")], unit="Bps"),
        lines("Findings by kind", "How many processes have each finding.",
              [Query(by("id, severity", some.series("gomem_finding_active")), "{{id}} ({{severity}})")], unit="short"),
        lines("Address space (VSZ)", "By the runtime's state, beside what is in RAM. Reserved and Prepared cost "
              "nothing, however large.",
              [*_states(some, "job"), Query(by("job", some.series("gomem_process_resident_bytes")), "resident")]),
    ]  # fmt: skip
    return arrange(made, panels, marks(some))


def process() -> dashboard.Dashboard:
    """Show one process in depth, over its restarts."""
    made = board(
        "gomem-process", "gomem: one Go process",
        "One process of one tracer, over its restarts: what the runtime says of every byte, and the kernel. Where "
        "several processes of that name run at a time, they are added up unless one is chosen by its pid or pod.",
        [*tracers(one=True), *workload(), process_choice(one=True), pid()],
    )  # fmt: skip
    one = Chosen('pid=~"$pid"')

    def figure(metric: str, more: str = "") -> str:
        return by(_ONE, one.series(metric, more))

    def rate(metric: str, labels: str = "") -> str:
        return by(f"{_ONE}, {labels}" if labels else _ONE, one.rate(metric))

    def parts(metric: str, labels: str, more: str = "") -> str:
        return by(f"{_ONE}, {labels}", one.series(metric, more))

    resident = Query(figure("gomem_process_resident_bytes"), "resident")
    panels: list[Panel] = [
        number("RSS", "Resident memory.", resident.expr, unit="bytes"),
        number("Live heap", "What the last collection found reachable.", figure("gomem_heap_live_bytes"), unit="bytes"),
        number("Free heap in RAM", "Free pages that the runtime keeps for reuse.",
               figure("gomem_heap_page_bytes", KEPT), unit="bytes"),
        number("Goroutines", "Goroutines that exist.", figure("gomem_goroutines")),
        number("Processes", "How many processes are added up here.", figure("gomem_process_state")),
        number("Age of the figures", "Seconds since the last look.",
               f"time() - min by ({_ONE}) ({one.series('gomem_report_timestamp_seconds')})", unit="s"),
        finding_rows(one),
        alert_rows(),
        states("States", "The worst finding.", Query(worst(one, _ONE), "worst finding"), SEVERITIES, height=4),
        lines("What is in RAM", "The heap's resident pages by the runtime's state; red was given back and is still "
              "counted in RSS.", _resident_pages(one, _ONE), stacked=True),
        lines("RAM by kind of mapping", "Everything that RSS is made of.",
              [Query(parts("gomem_resident_bytes", "kind"), "{{kind}}")], stacked=True),
        lines("Live heap, goal, limit", "The heap swings between live and goal. Without a memory limit there is no "
              "red line.",
              [Query(figure("gomem_heap_allocated_bytes"), "allocated"),
               Query(figure("gomem_heap_live_bytes"), "live"), Query(figure("gomem_heap_goal_bytes"), "goal"),
               Query(figure("gomem_memory_limit_usage_bytes"), "held against the limit"),
               Query(figure("gomem_memory_limit_bytes"), "limit")]),
        lines("Container", "What the kernel counts against the limit of the container or cgroup, of all processes in "
              "it; what it cannot take back is what kills.",
              [Query(_of_container(one, "memory"), "used"),
               Query(_of_container(one, "memory_unreclaimable"), "cannot be taken back"),
               Query(_of_container(one, "memory_max"), "limit")]),
        lines("RAM by what backs it", "Anonymous memory fills RAM; file pages can be dropped; lazily freed ones are "
              "taken when the kernel needs them.",
              [Query(figure("gomem_process_anonymous_bytes"), "anonymous"),
               Query(figure("gomem_process_file_bytes"), "file"),
               Query(figure("gomem_process_shmem_bytes"), "shmem"),
               Query(figure("gomem_process_lazily_freed_bytes"), "lazily freed"),
               Query(figure("gomem_process_huge_page_bytes"), "huge pages"),
               Query(figure("gomem_process_swap_bytes"), "swap")]),
        lines("Heap pages by the runtime's state", "In RAM or not.",
              [Query(parts("gomem_heap_page_bytes", "state"), "{{state}}")], stacked=True),
        lines("Allocation", "Bytes a second that the program allocates: what drives collections.",
              [Query(rate("gomem_allocated_bytes_total"), "allocated")], unit="Bps"),
        lines("Collections", "GC cycles a second, and those that the program forced.",
              [Query(rate("gomem_gc_cycles_total"), "all"), Query(rate("gomem_gc_forced_cycles_total"), "forced")],
              unit="cps"),
        lines("Given back to the kernel", "By who asked: the background scavenger, allocation near the limit, "
              "debug.FreeOSMemory.",
              [Query(rate("gomem_scavenged_bytes_total", "source"), "{{source}}")], unit="Bps"),
        lines("Transitions of regions", "Bytes a second that went from one state to another.",
              [Query(rate("gomem_transition_bytes_total", "from, to"), "{{from}} to {{to}}")], unit="Bps"),
        lines("Memory system calls", "Calls a second that change the address space.",
              [Query(rate("gomem_memory_syscalls_total", "syscall, advice"), "{{syscall}} {{advice}}")], unit="cps"),
        lines("Fragmentation", "Room in spans that are in use, and bytes behind their last slots.",
              [Query(figure("gomem_span_free_slot_bytes"), "free slots"),
               Query(figure("gomem_span_tail_waste_bytes"), "tail waste")]),
        lines("The runtime's own memory", "What the runtime got from the kernel, by what for (MemStats).",
              [Query(parts("gomem_runtime_sys_bytes", "part"), "{{part}}")], stacked=True),
        lines("Goroutines by state", "As the scheduler has them.",
              [Query(parts("gomem_goroutine_states", "state"), "{{state}}")], unit="short", stacked=True),
        lines("Address space (VSZ)", "By the runtime's state, beside what is in RAM. Reserved and Prepared cost "
              "nothing, however large.", [*_states(one, _ONE), resident]),
        lines("How far to trust this", "Drift of the model, lost events, skew of the last look: all should be 0.",
              [Query(figure("gomem_drift_bytes_total"), "drift"),
               Query(figure("gomem_lost_events_total"), "lost events"),
               Query(figure("gomem_consistency_skew_bytes"), "skew"),
               Query(figure("gomem_accounting_unexplained_bytes"), "unexplained")], unit="short"),
    ]  # fmt: skip
    return arrange(made, panels, marks(one))


def _of_container(chosen: Chosen, name: str) -> str:
    return by("job, instance", chosen.cgroup(f"gomem_cgroup_{name}_bytes"))


def tracer() -> dashboard.Dashboard:
    """Show how the tracers do: what they cost, see and lose."""
    made = board(
        "gomem-tracer", "gomem: the tracer itself",
        "What gomem costs, sees and loses; where processes are shown, those that are chosen.",
        [*tracers(), *workload(), process_choice()],
    )  # fmt: skip
    some = Chosen()

    def of_all(metric: str) -> str:
        return total(metric + TRACERS)

    def each(metric: str) -> str:
        return by("job, instance", metric + TRACERS)

    def rate(metric: str, labels: str = "") -> str:
        return (
            by(labels, f"rate({metric}{TRACERS}[$__rate_interval])")
            if labels
            else total(f"rate({metric}{TRACERS}[$__rate_interval])")
        )

    panels: list[Panel] = [
        number("Targets", "Processes in all states.", of_all("gomem_targets")),
        number("Memory", "Resident memory of all tracers.", of_all("gomem_tracer_resident_bytes"), unit="bytes"),
        number("CPU", "Share of one CPU, all tracers together.", rate("gomem_tracer_cpu_seconds_total"),
               unit="percentunit"),
        number("Lost events", "Since the tracers started.", of_all("gomem_tracer_lost_events_total")),
        number("Interval", "Seconds between two looks at one process; more than was asked for means that the CPU "
               "budget is used up.", f"max(gomem_tracer_round_interval_seconds{TRACERS})", unit="s"),
        number("Age of the figures", "Seconds since the oldest view was made.",
               f"max(time() - gomem_view_timestamp_seconds{TRACERS})", unit="s"),
        lines("Targets by state", "kernel_only: the runtime could not be read; unreadable: nothing could; waiting: a "
              "budget is used up.", [Query(by("state", f"gomem_targets{TRACERS}"), "{{state}}")], unit="short",
              stacked=True),
        lines("CPU", "Share of one CPU by tracer.",
              [Query(rate("gomem_tracer_cpu_seconds_total", "job, instance"), "{{instance}}")], unit="percentunit"),
        lines("Memory", "Resident memory by tracer.", [Query(each("gomem_tracer_resident_bytes"), "{{instance}}")]),
        lines("Events", "From the kernel, a second; lost; and pauses of targets that sent too many.",
              [Query(rate("gomem_tracer_events_total"), "events"),
               Query(rate("gomem_tracer_lost_events_total"), "lost"),
               Query(rate("gomem_tracer_event_pauses_total"), "pauses")], unit="cps"),
        lines("Time for a round", "Seconds that looking at all processes once takes.",
              [Query(each("gomem_tracer_round_duration_seconds"), "{{instance}}")], unit="s"),
        lines("Slowest looks", "Seconds that one look takes, the ten slowest.",
              [top(f"max by ({PLACE}) ({some.series('gomem_look_duration_seconds')})")], unit="s"),
        lines("Cost for the targets", "Estimated share of their time that probes take, the ten highest.",
              [top(f"max by ({PLACE}) ({some.series('gomem_target_slowdown_ratio')})")], unit="percentunit"),
        lines("Probe hits", "A second, by role, over the chosen processes.",
              [Query(by("role", some.rate("gomem_probe_hits_total")), "{{role}}")], unit="cps"),
        lines("Drift and resyncs", "Bytes of drift a second, and how often a model was replaced after a loss.",
              [Query(total(some.rate("gomem_drift_bytes_total")), "drift"),
               Query(total(some.rate("gomem_resyncs_total")), "resyncs")], unit="short"),
        lines("Discovery", "Processes seen, Go processes among them, targets that ended, errors; a second.",
              [Query(rate("gomem_discovery_processes_total"), "processes"),
               Query(rate("gomem_discovery_go_processes_total"), "Go processes"),
               Query(rate("gomem_discovery_ended_targets_total"), "ended"),
               Query(rate("gomem_discovery_errors_total"), "errors")], unit="cps"),
        lines("HTTP", "Requests a second by path and code.",
              [Query(rate("gomem_http_requests_total", "path, code"), "{{path}} {{code}}")], unit="reqps"),
        lines("Black boxes", "Of processes that died, a minute: kept, and not kept (the disk is full, or too many died "
              "at once). Only where gomem runs with --black-box.",
              [Query(f"60 * {rate('gomem_black_boxes_saved_total', 'job, instance')}", "kept {{instance}}"),
               Query(f"60 * {rate('gomem_black_boxes_failed_total', 'job, instance')}", "not kept {{instance}}")],
              unit="short", levels=NONE_IS_MUST),
        rows("Tracers", "What each sees by, and why.",
             [Query(f"gomem_tracer_info{TRACERS}"), Query(f"gomem_tracer_open_fds{TRACERS}")],
             renamed={"Value #B": "open files"}, units={}, hidden=("__name__", "Value #A")),
    ]  # fmt: skip
    return arrange(made, panels)


BOARDS = {"overview": overview, "process": process, "workload": over_restarts, "tracer": tracer}
