"""Programs of releases that nobody measured: figures that proved themselves, with a limit, or the kernel's view alone.

The programs are real ones whose build information is made to name another release, of as many letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules, report_of
from tests.support.parked import parked
from tests.support.processes import rss, running, wait_until
from tests.support.toolchains import UNMEASURED

SHAPE: dict[str, Any] = {"live": 16, "garbage": 0.5, "goroutines": 20, "big": 4, "bigdrop": 2, "dirty": 200}


def renamed(path: Path, real: str, claimed: str, directory: Path) -> Path:
    assert len(real) == len(claimed)
    raw = path.read_bytes()
    assert real.encode() in raw
    output = directory / "renamed"
    output.write_bytes(raw.replace(real.encode(), claimed.encode()))
    output.chmod(0o755)
    return output


@pytest.mark.parametrize(
    ("claimed", "layout", "certain"),
    [
        ("go1.99.1", "nearest", False),
        ("go1.28.0", "nearest", False),
        ("go1.27.9", "table", True),
        ("go1.27-f", "table", False),
    ],
)
def test_a_newer_release_that_kept_its_structs_is_read_exactly(
    claimed: str, layout: str, certain: bool, tmp_path: Path
) -> None:
    """A patch release needs nothing from anybody; of a fork and another minor it is noted that nobody measured it."""
    binary = renamed(build("parked", "1.27.3", stripped=True), "go1.27.3", claimed, tmp_path)
    with parked(binary, SHAPE, env={"GOMAXPROCS": "3"}) as target:
        report = report_of("snapshot", "--pid", target.pid)
        truth = target.memstats()
    assert report["process"]["go_version"] == claimed
    assert report["process"]["layout"] == layout
    doubts = [] if certain else [(f"certainty about {claimed}", "note")]
    assert [(limit["what"], limit["kind"]) for limit in report["limits"]] == doubts
    assert "python" not in str(report["limits"])
    told = {name: value for name, value in report["memstats"].items() if name != "BySize"}
    assert told == {name: truth[name] for name in told}
    obeys_the_rules(report)


def test_a_patch_release_between_measured_ones_that_differ_is_read_by_that_which_fits() -> None:
    """Go 1.23.3, of which no table was made: m and work differ between 1.23.2 and 1.23.4."""
    (release,) = UNMEASURED
    with parked(build("parked", release, stripped=True), SHAPE, env={"GOMAXPROCS": "3"}) as target:
        report = report_of("snapshot", "--pid", target.pid)
        truth = target.memstats()
    assert report["process"]["go_version"] == f"go{release}"
    assert report["limits"] == []
    assert report["structure"]["scheduler"]["ms"] > 0
    told = {name: value for name, value in report["memstats"].items() if name != "BySize"}
    assert told == {name: truth[name] for name in told}
    obeys_the_rules(report)


@pytest.mark.parametrize("release", ["1.19", "1.21.13", "1.23.9", "1.25.5"])
@pytest.mark.parametrize("freeze", [(), ("--freeze",)], ids=["running", "frozen"])
def test_of_a_release_that_changed_its_structs_only_the_kernels_view_is_shown(
    release: str, freeze: tuple[str, ...], tmp_path: Path
) -> None:
    real = {"1.19": "go1.19.8"}.get(release, f"go{release}")
    claimed = "go1.99.1" + "1" * (len(real) - 8)
    binary = renamed(build("parked", release, stripped=True), real, claimed, tmp_path)
    with parked(binary, SHAPE) as target:
        report = report_of("snapshot", "--pid", target.pid, *freeze)
        text = gomem("snapshot", "--pid", target.pid, *freeze)
        target.memstats()
    assert report["memstats"] is None
    assert report["heap"] is None
    assert report["resident"]["total"] > 16 << 20
    whats = {limit["what"] for limit in report["limits"]}
    assert whats == {f"certainty about {claimed}", "the Go runtime's state"}
    assert text.status == 0
    assert claimed in text.stdout
    obeys_the_rules(report)


def test_an_unknown_release_with_dwarf_is_read_by_it(tmp_path: Path) -> None:
    binary = renamed(build("parked", "1.25.5"), "go1.25.5", "go1.99.1", tmp_path)
    with parked(binary, SHAPE) as target:
        report = report_of("snapshot", "--pid", target.pid)
        truth = target.memstats()
    assert report["process"]["layout"] == "dwarf"
    assert [limit["what"] for limit in report["limits"]] == ["certainty about go1.99.1"]
    told = {name: value for name, value in report["memstats"].items() if name != "BySize"}
    assert told == {name: truth[name] for name in told}


@pytest.mark.parametrize(("release", "claimed"), [("1.19", "go1.19.4"), ("1.23.9", "go1.23.5"), ("1.27.3", "go1.99.1")])
def test_a_layout_that_fits_proves_itself_on_a_heap_that_never_rests(
    release: str, claimed: str, tmp_path: Path
) -> None:
    """For go1.19.4 and go1.23.5 there are two measured patches that differ, of which one fits."""
    real = {"1.19": "go1.19.8"}.get(release, f"go{release}")
    binary = renamed(build("churn", release, stripped=True), real, claimed, tmp_path)
    with running(binary, "-phase=300ms", "-mb=64") as process:
        wait_until(lambda: rss(process.pid) > 24 << 20, "growth")
        reports = [report_of("snapshot", "--pid", process.pid) for _ in range(4)]
    for report in reports:
        assert report["memstats"] is not None, report["limits"]
        assert [limit["what"] for limit in report["limits"] if limit["kind"] == "gap"] == []
        assert report["consistency"]["exact"] or report["consistency"]["skew_bytes"] > 0
