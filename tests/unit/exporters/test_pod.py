"""The bill of a cgroup as a page and as JSON. To accept a changed page, run with GOMEM_UPDATE_GOLDEN=1."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from gomem.exporters.json.schema import POD_FILE, load_schema, pod_schema, validate
from gomem.exporters.pod import pod_json, pod_text
from gomem.exporters.text.console import Sheet
from gomem.tracer.report import CgroupBill, FileIo, Limit, MemoryPressure, Stalled
from gomem.tracer.report.findings.cgroup import Inside, of_bill
from gomem.tracer.report.pod import BpfMaps, PodProcess, PodReport, ProcessSums

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31mred\x1b[0m \x07 [bold]markup[/] \u202e\n\r\udcff\x00"
MB = 1 << 20
UID = "0c3f0e6b-8d8a-4c0e-9d5f-1d2a3b4c5d6e"
POD = f"/kubepods/burstable/pod{UID}"


def bill(path: str, current: int, limit: int | None, **parts: int) -> CgroupBill:
    parts = {"anon": 120 * MB, "active_file": 340 * MB, "inactive_file": 20 * MB, "file_mapped": 12 * MB, **parts}
    return CgroupBill(
        path, 2, current, current + MB, limit, 500 * MB, 0, limit or 600 * MB, path if limit else POD,
        current - 20 * MB, 365 * MB, max(current - 132 * MB, 0), parts, {"high": 41, "max": 1, "oom_kill": 2},
        MemoryPressure(Stalled(1.0, 12.5, 3.0, 71.25), Stalled(0.0, 4.5, 1.0, 12.0)),
    )  # fmt: skip


WHOLE = bill(
    POD, 524 * MB, 600 * MB, kernel=30 * MB, slab_reclaimable=5 * MB, slab_unreclaimable=11 * MB, pagetables=2 * MB,
    sock=MB, shmem=8 * MB, swap=64 * MB, zswap=16 * MB, file_dirty=2 * MB,
)  # fmt: skip
SUMS = ProcessSums(3, 1, 134 * MB, 120 * MB, 120 * MB, 64 * MB, FileIo(5 * MB, 345 * MB))
REPORT = PodReport(
    taken_at="2026-03-01T12:00:00.000Z",
    path=POD,
    pod=UID,
    container_id=None,
    bill=WHOLE,
    above=[bill("/kubepods", 900 * MB, 4096 * MB)],
    below=[bill(f"{POD}/app", 500 * MB, None), bill(f"{POD}/pause", 24 * MB, 64 * MB)],
    processes=[
        PodProcess(4711, "orders", True, "/app", 120 * MB, 108 * MB, 12 * MB, 0, 64 * MB, MB, FileIo(MB, 340 * MB)),
        PodProcess(4194303, "log-shipper-with-a-long-name", False, "/app", 13 * MB, 12 * MB, MB, MB, 0, MB, None),
        PodProcess(1, "pause", None, "/pause", MB, MB, 0, 0, 0, 4096, FileIo(0, 0)),
    ],
    sums=SUMS,
    bpf_maps=BpfMaps(3, 4 * MB),
    machine_pressure=None,
    findings=of_bill(WHOLE, Inside("its processes", SUMS.rss, SUMS.anonymous, MB, SUMS.io, alone=False)),
    limits=[Limit("cgroup-programs", "whether 1 processes are Go programs", "their executables cannot be read", "")],
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_is_as_in_the_golden_file_and_no_figure_is_cut(width: int) -> None:
    page = re.sub("\x1b\\[[0-9;]*m", "", pod_text(REPORT, 20, Sheet(width, terminal=True)))
    golden = GOLDEN / f"pod.{width}.txt"
    if os.environ.get("GOMEM_UPDATE_GOLDEN"):
        golden.write_text(page)
    assert page.splitlines() == golden.read_text().splitlines()
    assert all(len(line) <= width for line in page.splitlines())
    for figure in ("504 MiB", "340 MiB", "392 MiB", "4194303", "134 MiB"):
        assert figure in page


def test_a_page_of_few_processes_says_that_there_are_more() -> None:
    page = pod_text(REPORT, 1, Sheet())
    assert "3 processes, RSS 134 MiB in all, 1 of them Go (120 MiB); the first 1" in page
    assert "4194303" not in page
    assert "4194303" in pod_json(REPORT)


def test_the_json_is_what_its_schema_says_which_is_made_from_the_types() -> None:
    assert load_schema(POD_FILE) == pod_schema()
    body = json.loads(pod_json(REPORT))
    validate(body, POD_FILE)
    assert body["schema"] == "gomem.pod/1"
    with pytest.raises(ValueError, match="working_set"):
        validate({**body, "bill": {**body["bill"], "working_set": -1}}, POD_FILE)


def test_names_cannot_command_the_terminal_or_break_the_json() -> None:
    evil = [replace(one, name=HOSTILE, cgroup=HOSTILE) for one in REPORT.processes]
    named = replace(REPORT, path=HOSTILE, processes=evil, below=[replace(WHOLE, path=HOSTILE, limited_by=HOSTILE)])
    for page in (pod_text(named, 20, Sheet()), pod_text(named, 20, Sheet(80, terminal=True))):
        assert not {"\x07", "\x00", "\u202e", "\udcff", "\r"} & set(page)
        assert "\x1b[31m" not in page
        page.encode()
    validate(json.loads(pod_json(named)), POD_FILE)
