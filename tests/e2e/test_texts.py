"""What a report says of itself is what happened: no text assumes what did not, and each thing to do can be done."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules, report_of
from tests.support.parked import parked
from tests.support.processes import sleeping
from tests.support.requirements import absent

SHAPE = {"live": 8, "garbage": 0.5}
WITHOUT_BPF = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin")


def without_build_information(path: Path, directory: Path) -> Path:
    """Return the program with noise in the place of its build information."""
    raw = bytearray(path.read_bytes())
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".go.buildinfo")
        assert section is not None
        at = section["sh_offset"]
    raw[at : at + 32] = b"\xa5" * 32
    output = directory / "noise"
    output.write_bytes(raw)
    output.chmod(0o755)
    return output


def test_bad_build_information_is_no_reason_to_tell_of_figures_that_are_there_as_missing(tmp_path: Path) -> None:
    """The release stands elsewhere in the program, too."""
    binary = without_build_information(build("parked", "1.25.5", stripped=True), tmp_path)
    with parked(binary, SHAPE) as target:
        report = report_of("snapshot", "--pid", target.pid)
        truth = target.memstats()
    assert report["process"]["go_version"] == "go1.25.5"
    told = {name: value for name, value in report["memstats"].items() if name != "BySize"}
    assert told == {name: truth[name] for name in told}
    assert ["corrupt build information" in limit["why"] for limit in report["limits"]] == [True]
    assert "kernel's view" not in str(report["limits"])
    obeys_the_rules(report)


def test_a_program_that_is_not_go_says_that_only_the_kernels_view_is_left() -> None:
    """The other side of it: here that is so."""
    with sleeping() as process:
        report = report_of("snapshot", "--pid", process.pid)
    (limit,) = report["limits"]
    assert "only the kernel's view is reported" in limit["why"]
    assert report["memstats"] is None
    obeys_the_rules(report)


@pytest.mark.parametrize("more", [(), ("--with", "spans", "--with", "rss")], ids=["plain", "optional"])
def test_a_backend_that_did_not_work_or_is_in_use_already_is_not_what_to_do(more: tuple[str, ...]) -> None:
    with parked(build("parked", "1.25.5"), SHAPE) as target:
        done = gomem("trace", "--pid", target.pid, "-d", "0.3", "--format", "json", *more, under=WITHOUT_BPF)
        if "setpriv" in done.stderr:
            absent("setpriv cannot take capabilities away")
        report = done.report()
    assert report["backend"] == "procfs"
    assert report["backend_reason"].startswith("BPF does not work here")
    fixes = " ".join(limit["fix"] for limit in report["limits"])
    assert "--backend bpf" not in fixes
    assert "procfs" not in fixes
    assert "--backend strace" in fixes
    assert len(report["limits"]) == 1 + len(more) // 2
    obeys_the_rules(report)
