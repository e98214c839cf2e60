"""What is tried on each kernel, by which tests, and which answer of `gomem doctor` says in what way it works there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One line of docs/support.md: it works where all its tests pass.

    `check`: the check of `gomem doctor` whose words say how; where they have not `best` among them, it falls back to
    what they say. `always`: it is tried on each change, on one kernel.
    """

    name: str
    tests: tuple[str, ...]
    check: str = ""
    best: str = ""
    always: bool = False


DOCTOR = "gomem doctor"  # it is run in any case, and what it needs works if it ends with 0
_INSIDE, _LIVE, _E2E = "tests/kernels/inside", "tests/live", "tests/e2e"
_PAGES = f"{_LIVE}/kernel/test_residency.py::test_the_pages_that_were_touched_are_those_that_are_resident"
_HUGE = f"{_LIVE}/kernel/test_residency.py::test_a_huge_page_counts_whole_and_the_huge_zero_page_not_at_all"
_PODS = f"{_E2E}/test_pods.py"
_NAMES = f"{_INSIDE}/memory.py::test_the_names_that_go_gives_its_mappings_are_what_gomem_takes_them_for"

FEATURES = (
    Feature("doctor", (DOCTOR,), always=True),
    Feature(
        "snapshot: all figures of MemStats, exact",
        (
            f"{_E2E}/test_parked_targets.py::test_heaps_of_any_shape_are_read_exactly[partly scavenged]",
            f"{_E2E}/test_parked_targets.py::test_heaps_of_any_shape_are_read_exactly[freed]",
        ),
    ),
    Feature(
        "residency of each page",
        (
            f"{_PAGES}[touched-pagemap]",
            f"{_PAGES}[lazily_freed-pagemap]",
        ),
        "own processes", "PAGEMAP_SCAN",
    ),
    Feature(
        "events of the runtime: none lost, drift 0",
        (f"{_INSIDE}/exact.py::test_events_are_exact_and_whole",),
        "uprobes", "uprobe_multi", always=True,
    ),
    Feature(
        "events of system calls",
        (f"{_E2E}/test_output.py::test_every_memory_system_call_is_counted_with_its_bytes[1.27.3-bpf]",),
    ),
    Feature(
        "no tax: memory calls at functions, by fentry", (f"{_INSIDE}/functions.py",),
    ),
    Feature(
        "the same where the kernel interrupts programs: given up", (f"{_INSIDE}/preemption.py",),
    ),
    Feature(
        "the same by kprobes, where there is no BTF", (f"{_INSIDE}/kprobes.py",),
    ),
    Feature(
        "32-bit system calls (int 0x80)",
        (f"{_LIVE}/bpf/test_compat_calls.py::test_32_bit_calls_of_a_64_bit_program_are_what_they_are",),
    ),
    Feature(
        "launching a command",
        (f"{_E2E}/test_start_up.py::test_each_reservation_at_start_is_there_and_has_a_function_of_the_runtime[1.27.3]",),
    ),
    Feature(
        "following execve",
        (f"{_E2E}/test_targets_that_change.py::test_a_target_that_executes_another_program_is_followed_and_each_program_is_a_chapter[bpf]",),
    ),
    Feature(
        "kill -9 of gomem leaves nothing",
        (f"{_LIVE}/bpf/test_bpf_restless_targets.py::test_a_tracer_that_is_killed_leaves_no_program_link_map_or_breakpoint[multi]",),
    ),
    Feature(
        "--with spans",
        (f"{_E2E}/test_span_events.py::test_a_stripped_program_shows_its_spans_and_cycles[1.23.9-exe]",),
    ),
    Feature(
        "--with page-faults, --with rss",
        (f"{_E2E}/test_targets_that_change.py::test_page_faults_and_resident_bytes_are_in_the_report_if_they_were_asked_for",),
    ),
    Feature(
        "--allocs",
        (f"{_INSIDE}/exact.py::test_optional_roles_and_allocations_are_seen",),
        "--allocs", "in bursts",
    ),
    Feature(
        "serve: several processes, each exact",
        (f"{_INSIDE}/exact.py::test_several_processes_are_followed_each_with_its_own_events",),
        "process events", "tells of new processes",
    ),
    Feature(
        "profiles",
        (
            f"{_E2E}/test_profile.py::test_the_file_is_what_the_process_would_have_written",
            f"{_E2E}/test_profile_of_resident_memory.py::test_go_tool_pprof_reads_a_profile_whose_total_is_rss",
        ),
    ),
    Feature(
        "exact capability sets",
        (
            f"{_INSIDE}/rights.py::test_each_right_of_the_smallest_set_is_named_where_it_is_missing",
            f"{_INSIDE}/rights.py::test_a_process_of_ones_own_user_takes_no_right_at_all_to_be_read",
        ),
    ),
    Feature(
        "PID namespaces",
        (f"{_LIVE}/bpf/test_shared_namespaces.py::test_processes_of_its_own_and_of_nested_namespaces_have_its_numbers",),
    ),
    Feature(
        "cgroup v2: limits, OOM kills",
        (
            f"{_LIVE}/kernel/test_view.py::test_the_limit_of_the_parent_cgroup_is_seen_and_the_container_named",
            f"{_LIVE}/ending/test_how_it_ended.py::test_the_victim_of_the_oom_killer_and_one_that_was_killed_beside_it",
        ),
    ),
    Feature(
        "cgroup v2: what is charged, and what of it can be reclaimed",
        (
            f"{_PODS}::test_page_cache_that_the_program_read_is_said_to_be_read",
            f"{_PODS}::test_a_heap_is_no_page_cache_and_nothing_of_it_can_be_taken_back",
            f"{_PODS}::test_files_in_memory_are_the_cgroups_and_in_no_rss_until_they_are_mapped",
            f"{_PODS}::test_full_pipes_are_memory_of_the_kernel",
            f"{_PODS}::test_a_pod_is_the_whole_pod_with_its_containers_in_it",
            f"{_PODS}::test_in_a_cgroup_namespace_the_bill_is_that_of_its_root",
        ),
    ),
    Feature("huge pages (THP)", (f"{_HUGE}[pagemap]",)),
    Feature("swap", (f"{_INSIDE}/memory.py::test_what_is_in_swap_is_not_in_ram",)),
    Feature("names of mappings (Go 1.25)", (_NAMES,)),
    # The last: from there on the machine is locked down.
    Feature(
        "no_new_privs, seccomp, read-only root, hidepid, lockdown",
        (f"{_INSIDE}/rights.py::test_a_surrounding_that_forbids_something_is_no_hindrance_or_is_named",),
    ),
)  # fmt: skip
