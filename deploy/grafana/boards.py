"""What is on the dashboards: queries on the metrics of docs/metrics.md, and what each teaches."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import Panel, Query, arrange, board, choice, lines, number, rows

SOME = '{job=~"$job", instance=~"$instance", process=~"$process"}'
ONE = '{job=~"$job", instance=~"$instance", pid="$pid"}'
TRACERS = '{job=~"$job", instance=~"$instance"}'
SERIES = "job, instance, pid, process"


def _within(selector: str, more: str) -> str:
    return f"{selector[:-1]}, {more}}}"


def _sum(metric: str, selector: str, more: str = "") -> str:
    return f"sum({metric}{_within(selector, more) if more else selector})"


def _by(metric: str, selector: str, more: str = "") -> str:
    return f"sum by ({SERIES}) ({metric}{_within(selector, more) if more else selector})"


def _top(query: str) -> Query:
    return Query(f"topk(10, {query})", "{{process}} {{pid}}")


def _states(selector: str) -> list[Query]:
    """Return the address space by the runtime's state."""
    names = {"ready": "Ready", "prepared": "Prepared", "reserved": "Reserved", "unmanaged": "not the runtime's"}
    return [Query(_sum("gomem_virtual_bytes", selector, f'state="{state}"'), name) for state, name in names.items()]


def _resident_pages(selector: str) -> list[Query]:
    """Return what of the heap is in RAM, by the runtime's state."""
    names = {
        "in_use": "in use",
        "stacks": "goroutine stacks",
        "work_bufs": "work buffers",
        "free": "free, kept",
        "scavenged": "scavenged, still resident",
    }
    return [
        Query(_sum("gomem_heap_page_bytes", selector, f'state="{state}", residency="resident"'), name)
        for state, name in names.items()
    ]


def _tracers() -> list[dashboard.QueryVariable]:
    """Return the variables that choose tracers."""
    return [
        choice("job", "Job", "label_values(gomem_build_info, job)", several=True),
        choice("instance", "Tracer", 'label_values(gomem_build_info{job=~"$job"}, instance)', several=True),
    ]


def overview() -> dashboard.Dashboard:
    """Show many processes: which of them hold memory, and what for."""
    process = choice(
        "process", "Process", 'label_values(gomem_process_info{job=~"$job", instance=~"$instance"}, process)',
        several=True,
    )  # fmt: skip
    made = board(
        "gomem-overview", "gomem: Go processes",
        "Where the memory of many Go processes is: reserved, resident, in use, kept.", [*_tracers(), process],
    )  # fmt: skip
    kept = 'state="free", residency="resident"'
    info = f"group_left (go_version, namespace, pod, node) gomem_process_info{SOME}"
    panels: list[Panel] = [
        number("Processes", "Processes that are followed, with or without their runtime.",
               _sum("gomem_targets", TRACERS, 'state=~"followed|kernel_only"')),
        number("In RAM", "Resident memory of all chosen processes (RSS).", _sum("gomem_process_resident_bytes", SOME),
               unit="bytes"),
        number("Address space", "VSZ of all; most of it is reserved, and costs nothing.",
               _sum("gomem_process_virtual_bytes", SOME), unit="bytes"),
        number("Heap in use", "Heap pages that hold objects.",
               _sum("gomem_heap_page_bytes", SOME, 'state="in_use"'), unit="bytes"),
        number("Free heap in RAM", "Free pages that the runtimes keep for reuse: what could be given back at once.",
               _sum("gomem_heap_page_bytes", SOME, kept), unit="bytes"),
        number("Findings", "Warnings and critical findings that hold now; gomem snapshot --pid says each in words.",
               _sum("gomem_finding_active", SOME, 'severity!="info"') + " or vector(0)"),
        lines("Reserved versus resident", "Address space by the runtime's state, and what is really in RAM. Reserved "
              "and Prepared cost nothing, however large.",
              [*_states(SOME), Query(_sum("gomem_process_resident_bytes", SOME), "resident")]),
        lines("Heap in RAM by the runtime's state", "Orange is kept for reuse; red was given back and not taken by the "
              "kernel yet (MADV_FREE, huge pages).", _resident_pages(SOME), stacked=True),
        rows("Processes", "The newest figures of each process.",
             [Query(f"gomem_process_resident_bytes{SOME} * on ({SERIES}) {info}"),
              Query(f"gomem_process_virtual_bytes{SOME}"),
              Query(_by("gomem_heap_page_bytes", SOME, 'state="in_use"')),
              Query(_by("gomem_heap_page_bytes", SOME, kept)),
              Query(f"gomem_heap_live_bytes{SOME}"),
              Query(f"gomem_heap_goal_bytes{SOME}")],
             renamed={"Value #A": "RSS", "Value #B": "VSZ", "Value #C": "in use", "Value #D": "free, in RAM",
                      "Value #E": "live", "Value #F": "goal", "go_version": "Go"},
             units=dict.fromkeys(("RSS", "VSZ", "in use", "free, in RAM", "live", "goal"), "bytes"),
             hidden=("__name__", "job"), height=10),
        lines("RSS, the ten largest", "Resident memory by process.", [_top(f"gomem_process_resident_bytes{SOME}")]),
        lines("Free heap in RAM, the ten largest", "Retained memory: the background scavenger returns it slowly, "
              "debug.FreeOSMemory at once.", [_top(_by("gomem_heap_page_bytes", SOME, kept))]),
        lines("Share of GOMEMLIMIT", "What the limit is held against, as a share of it. Near 1 the collector runs "
              "all the time.",
              [_top(f"gomem_memory_limit_usage_bytes{SOME} / gomem_memory_limit_bytes{SOME}")], unit="percentunit"),
        lines("Share of the cgroup's limit", "What the kernel counts against the container's limit; at 1 the OOM "
              "killer comes.",
              [_top(f"gomem_cgroup_memory_bytes{SOME} / gomem_cgroup_memory_max_bytes{SOME}")], unit="percentunit"),
        lines("Collections", "GC cycles a second.", [_top(f"rate(gomem_gc_cycles_total{SOME}[$__rate_interval])")],
              unit="cps"),
        lines("Given back to the kernel", "Bytes a second that the scavengers gave back, by who asked.",
              [Query(f"sum by (source) (rate(gomem_scavenged_bytes_total{SOME}[$__rate_interval]))", "{{source}}")],
              unit="Bps"),
        lines("C heap and other memory", "RAM that is not the Go runtime's: malloc of cgo, mmap by hand. pprof does "
              "not see it.",
              [_top(_by("gomem_resident_bytes", SOME, 'kind=~"c_heap|other"'))]),
        lines("Findings by kind", "How many processes have each finding.",
              [Query(f"count by (id, severity) (gomem_finding_active{SOME} == 1)", "{{id}} ({{severity}})")],
              unit="short"),
    ]  # fmt: skip
    return arrange(made, panels)


def process() -> dashboard.Dashboard:
    """Show one process in depth, reserved versus resident on top."""
    name = choice("process", "Process", 'label_values(gomem_process_info{job=~"$job", instance=~"$instance"}, process)',
                  several=False)  # fmt: skip
    pid = choice(
        "pid", "Pid", 'label_values(gomem_process_info{job=~"$job", instance=~"$instance", process="$process"}, pid)',
        several=False,
    )  # fmt: skip
    made = board(
        "gomem-process", "gomem: one Go process", "One process: what the runtime says of every byte, and the kernel.",
        [*_tracers(), name, pid],
    )  # fmt: skip
    resident = Query(f"gomem_process_resident_bytes{ONE}", "resident")

    def rate(metric: str) -> str:
        return f"rate({metric}{ONE}[$__rate_interval])"

    panels: list[Panel] = [
        lines("Reserved versus resident", "Address space by the runtime's state, and what is in RAM.",
              [*_states(ONE), resident]),
        lines("What is in RAM", "The heap's resident pages by the runtime's state; red was given back and is still "
              "counted in RSS.",
              [*_resident_pages(ONE),
               Query(_sum("gomem_resident_bytes", ONE, 'kind!="heap_arena"'), "everything else")], stacked=True),
        number("RSS", "Resident memory.", resident.expr, unit="bytes"),
        number("VSZ", "Address space.", f"gomem_process_virtual_bytes{ONE}", unit="bytes"),
        number("Live heap", "What the last collection found reachable.", f"gomem_heap_live_bytes{ONE}", unit="bytes"),
        number("Goroutines", "Goroutines that exist.", f"gomem_goroutines{ONE}"),
        number("Collections", "Completed GC cycles.", f"gomem_gc_cycles_total{ONE}"),
        number("Age of the figures", "Seconds since the last look.", f"time() - gomem_report_timestamp_seconds{ONE}",
               unit="s"),
        lines("Heap pages by the runtime's state", "In RAM or not.",
              [Query(f"sum by (state) (gomem_heap_page_bytes{ONE})", "{{state}}")], stacked=True),
        lines("Live heap, goal, limit", "The heap swings between live and goal. Without a memory limit there is no "
              "red line.",
              [Query(f"gomem_heap_allocated_bytes{ONE}", "allocated"), Query(f"gomem_heap_live_bytes{ONE}", "live"),
               Query(f"gomem_heap_goal_bytes{ONE}", "goal"),
               Query(f"gomem_memory_limit_usage_bytes{ONE}", "held against the limit"),
               Query(f"gomem_memory_limit_bytes{ONE}", "limit")]),
        lines("RAM by kind of mapping", "Everything that RSS is made of.",
              [Query(f"gomem_resident_bytes{ONE}", "{{kind}}")], stacked=True),
        lines("RAM by what backs it", "Anonymous memory fills RAM; file pages can be dropped; lazily freed ones are "
              "taken when the kernel needs them.",
              [Query(f"gomem_process_anonymous_bytes{ONE}", "anonymous"),
               Query(f"gomem_process_file_bytes{ONE}", "file"),
               Query(f"gomem_process_shmem_bytes{ONE}", "shmem"),
               Query(f"gomem_process_lazily_freed_bytes{ONE}", "lazily freed"),
               Query(f"gomem_process_huge_page_bytes{ONE}", "huge pages"),
               Query(f"gomem_process_swap_bytes{ONE}", "swap")]),
        lines("Allocation", "Bytes a second that the program allocates: what drives collections.",
              [Query(rate("gomem_allocated_bytes_total"), "allocated")], unit="Bps"),
        lines("Collections", "GC cycles a second, and those that the program forced.",
              [Query(rate("gomem_gc_cycles_total"), "all"), Query(rate("gomem_gc_forced_cycles_total"), "forced")],
              unit="cps"),
        lines("Given back to the kernel", "By who asked: the background scavenger, allocation near the limit, "
              "debug.FreeOSMemory.",
              [Query(f"sum by (source) ({rate('gomem_scavenged_bytes_total')})", "{{source}}")], unit="Bps"),
        lines("Transitions of regions", "Bytes a second that went from one state to another.",
              [Query(f"sum by (from, to) ({rate('gomem_transition_bytes_total')})", "{{from}} to {{to}}")], unit="Bps"),
        lines("Memory system calls", "Calls a second that change the address space.",
              [Query(f"sum by (syscall, advice) ({rate('gomem_memory_syscalls_total')})", "{{syscall}} {{advice}}")],
              unit="cps"),
        lines("Fragmentation", "Room in spans that are in use, and bytes behind their last slots.",
              [Query(f"gomem_span_free_slot_bytes{ONE}", "free slots"),
               Query(f"gomem_span_tail_waste_bytes{ONE}", "tail waste")]),
        lines("The runtime's own memory", "What the runtime got from the kernel, by what for (MemStats).",
              [Query(f"gomem_runtime_sys_bytes{ONE}", "{{part}}")], stacked=True),
        lines("Container", "What the kernel counts against the cgroup's limit.",
              [Query(f"gomem_cgroup_memory_bytes{ONE}", "used"),
               Query(f"gomem_cgroup_memory_max_bytes{ONE}", "limit")]),
        lines("Goroutines by state", "As the scheduler has them.",
              [Query(f"gomem_goroutine_states{ONE}", "{{state}}")], unit="short", stacked=True),
        lines("How far to trust this", "Drift of the model, lost events, skew of the last look: all should be 0.",
              [Query(f"gomem_drift_bytes_total{ONE}", "drift"), Query(f"gomem_lost_events_total{ONE}", "lost events"),
               Query(f"gomem_consistency_skew_bytes{ONE}", "skew"),
               Query(f"gomem_accounting_unexplained_bytes{ONE}", "unexplained")], unit="short"),
    ]  # fmt: skip
    return arrange(made, panels)


def tracer() -> dashboard.Dashboard:
    """Show how the tracers do: what they cost, see and lose."""
    made = board("gomem-tracer", "gomem: the tracer itself", "What gomem costs, sees and loses.", _tracers())

    def rate(metric: str) -> str:
        return f"rate({metric}{TRACERS}[$__rate_interval])"

    panels: list[Panel] = [
        number("Targets", "Processes in all states.", _sum("gomem_targets", TRACERS)),
        number("CPU", "Share of one CPU, all tracers together.", f"sum({rate('gomem_tracer_cpu_seconds_total')})",
               unit="percentunit"),
        number("Memory", "Resident memory of all tracers.", _sum("gomem_tracer_resident_bytes", TRACERS), unit="bytes"),
        number("Lost events", "Since the tracers started.", _sum("gomem_tracer_lost_events_total", TRACERS)),
        number("Interval", "Seconds between two looks at one process; more than was asked for means that the CPU "
               "budget is used up.", f"max(gomem_tracer_round_interval_seconds{TRACERS})", unit="s"),
        number("Age of the figures", "Seconds since the oldest view was made.",
               f"max(time() - gomem_view_timestamp_seconds{TRACERS})", unit="s"),
        lines("Targets by state", "kernel_only: the runtime could not be read; unreadable: nothing could; waiting: a "
              "budget is used up.", [Query(f"sum by (state) (gomem_targets{TRACERS})", "{{state}}")], unit="short",
              stacked=True),
        lines("CPU", "Share of one CPU by tracer.", [Query(rate("gomem_tracer_cpu_seconds_total"), "{{instance}}")],
              unit="percentunit"),
        lines("Memory", "Resident memory by tracer.", [Query(f"gomem_tracer_resident_bytes{TRACERS}", "{{instance}}")]),
        lines("Events", "From the kernel, a second; lost; and pauses of targets that sent too many.",
              [Query(f"sum({rate('gomem_tracer_events_total')})", "events"),
               Query(f"sum({rate('gomem_tracer_lost_events_total')})", "lost"),
               Query(f"sum({rate('gomem_tracer_event_pauses_total')})", "pauses")], unit="cps"),
        lines("Time for a round", "Seconds that looking at all processes once takes.",
              [Query(f"gomem_tracer_round_duration_seconds{TRACERS}", "{{instance}}")], unit="s"),
        lines("Slowest looks", "Seconds that one look takes, the ten slowest.",
              [_top(f"gomem_look_duration_seconds{TRACERS}")], unit="s"),
        lines("Cost for the targets", "Estimated share of their time that probes take, the ten highest.",
              [_top(f"gomem_target_slowdown_ratio{TRACERS}")], unit="percentunit"),
        lines("Probe hits", "A second, by role, over all targets.",
              [Query(f"sum by (role) ({rate('gomem_probe_hits_total')})", "{{role}}")], unit="cps"),
        lines("Drift and resyncs", "Bytes of drift a second, and how often a model was replaced after a loss.",
              [Query(f"sum({rate('gomem_drift_bytes_total')})", "drift"),
               Query(f"sum({rate('gomem_resyncs_total')})", "resyncs")], unit="short"),
        lines("Discovery", "Processes seen, Go processes among them, targets that ended, errors; a second.",
              [Query(f"sum({rate('gomem_discovery_processes_total')})", "processes"),
               Query(f"sum({rate('gomem_discovery_go_processes_total')})", "Go processes"),
               Query(f"sum({rate('gomem_discovery_ended_targets_total')})", "ended"),
               Query(f"sum({rate('gomem_discovery_errors_total')})", "errors")], unit="cps"),
        lines("HTTP", "Requests a second by path and code.",
              [Query(f"sum by (path, code) ({rate('gomem_http_requests_total')})", "{{path}} {{code}}")], unit="reqps"),
        rows("Tracers", "What each sees by, and why.",
             [Query(f"gomem_tracer_info{TRACERS}"), Query(f"gomem_tracer_open_fds{TRACERS}")],
             renamed={"Value #B": "open files"}, units={}, hidden=("__name__", "Value #A")),
    ]  # fmt: skip
    return arrange(made, panels)


BOARDS = {"overview": overview, "process": process, "tracer": tracer}
