from __future__ import annotations

import json

from gomem.exporters.processes import processes_json, processes_text
from gomem.tracer.discovery.listing import GoProcess, Listing
from gomem.tracer.report import Limit

SERVER = GoProcess(
    4711, "checkout-server-with-a-long-name", "/srv/checkout", ["checkout", "-v"], 1000, "go1.25.5", 3 << 30, 2 << 30,
    1 << 30, 4 << 30, "/kubepods/x", 5 << 30, [],
)  # fmt: skip
HIDDEN = GoProcess(
    4194303, "etcd", "/etcd", [], 0, "devel go1.28-3a7f25cc01 Mon", 1 << 20, cgroup="/",
    limits=[
        Limit(
            "heap-unreadable", "its heap", "cannot read process 4194303 (/etcd): permission denied",
            "needs CAP_SYS_PTRACE",
        )
    ],
)  # fmt: skip


def test_eighty_columns_are_enough_and_no_figure_is_cut() -> None:
    for width in (60, 80, 120, 160):
        page = processes_text(Listing([SERVER, HIDDEN], []), width)
        assert all(len(line) <= width for line in page.splitlines()), page
        for figure in ("4711", "4194303", "3.00 GiB", "4.00 GiB", "5.00 GiB"):
            assert figure in page
        assert ("1.00 GiB" in page) == (width >= 120), "the live heap goes first"


def test_in_a_pipe_nothing_is_cut() -> None:
    page = processes_text(Listing([SERVER, HIDDEN], []), None)
    assert SERVER.name in page
    assert "1.00 GiB" in page


def test_what_could_not_be_seen_stands_in_the_row_and_is_no_zero() -> None:
    lines = processes_text(Listing([SERVER, HIDDEN], []), 100).splitlines()
    at = next(number for number, line in enumerate(lines) if "4194303" in line)
    assert lines[at].count("?") == 3, "in use, live, GOMEMLIMIT"
    assert "none" in lines[at], "its cgroup was read: it has no limit"
    assert "permission denied" in lines[at + 1]
    assert "CAP_SYS_PTRACE" in lines[at + 2]


def test_the_names_of_processes_cannot_command_the_terminal() -> None:
    evil = GoProcess(1, "a\x1b[31m", "/a", [], None)
    assert "\x1b" not in processes_text(Listing([evil], []), None)
    assert "\x1b" not in processes_json(Listing([evil], []))


def test_nobody_there_is_said_and_so_are_those_who_could_not_be_seen() -> None:
    hidden = Limit("hidden-processes", "3 processes, Go or not", "may not be looked at", "run as root")
    page = processes_text(Listing([], [hidden]), 80)
    assert page.splitlines() == [
        "No Go process can be seen.", "", "3 processes, Go or not: may not be looked at", "  run as root",
    ]  # fmt: skip


def test_json_has_the_fields_and_the_schema() -> None:
    listing = json.loads(processes_json(Listing([HIDDEN], [])))
    assert listing["schema"] == "gomem.processes/1"
    row = listing["processes"][0]
    assert (row["pid"], row["heap_in_use"], row["memory_limit"], row["cgroup"]) == (4194303, None, None, "/")
