"""Functions of a profile, and of a difference: the figures of go tool pprof, line by line."""

from __future__ import annotations

import urllib.request
from itertools import accumulate
from pathlib import Path

import pytest

from gomem.exporters.pprof.decode import read_profile
from gomem.exporters.pprof.encode import encode
from gomem.exporters.profile.difference import difference
from gomem.exporters.profile.functions import Functions, by_function
from gomem.exporters.profile.sample_type import index_of
from gomem.tracer.report.profile import Profile
from tests.support.builds import build
from tests.support.pprof import Row, pprof, top, written_by_go
from tests.support.prometheus import running_prometheus

pytestmark = pytest.mark.live

UNITS = {"bytes": "B", "nanoseconds": "ns", "count": ""}


@pytest.fixture(scope="module", params=["1.19", "1.27.3"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = written_by_go(build("profiles", request.param), tmp_path_factory.mktemp("profiles"))
    return {file.name.removesuffix(".pb.gz"): file for file in written}


def share(value: int, whole: int) -> str:
    """A share as pprof writes it (measurement.Percentage)."""
    ratio = abs(100 * value / whole) if whole else 0.0
    if 99.95 <= ratio <= 100.05:
        return "100"
    return f"{ratio:.2f}" if ratio >= 1 else f"{ratio:.2g}"


def as_pprof_writes(functions: Functions) -> list[Row]:
    rows = functions.rows
    sums = accumulate(row.flat for row in rows)
    whole = functions.total
    return [
        Row(row.flat, share(row.flat, whole), share(so_far, whole), row.cumulative, share(row.cumulative, whole),
            f"{row.name} ({row.inlined})" if row.inlined else row.name)
        for row, so_far in zip(rows, sums, strict=True)
    ]  # fmt: skip


def same_as_pprof(profile: Profile, *arguments: str) -> None:
    for index, of in enumerate(profile.sample_types):
        for order in ("-flat", "-cum"):
            theirs = top(order, *arguments, sample_type=of.type, unit=UNITS[of.unit])
            ours = by_function(profile, index, cumulative=order == "-cum")
            assert as_pprof_writes(ours) == theirs, f"{of.type} {order} {arguments}"
            assert theirs or not any(sample.values[index] for sample in profile.samples)


def test_functions_are_those_of_pprof(files: dict[str, Path]) -> None:
    for file in files.values():
        same_as_pprof(read_profile(str(file)), str(file))


def test_a_difference_is_that_of_pprof_also_as_a_file(files: dict[str, Path], tmp_path: Path) -> None:
    before, after = str(files["heap.before"]), str(files["heap.after"])
    grown = difference(read_profile(before), read_profile(after))
    assert any(value < 0 for sample in grown.samples for value in sample.values)
    same_as_pprof(grown, f"-diff_base={before}", after)
    ours = tmp_path / "grown.pb.gz"
    ours.write_bytes(encode(grown))
    same_as_pprof(grown, str(ours))
    for report in ("-tree", "-peek=main", "-traces"):
        known = pprof(report, f"-diff_base={before}", after)
        assert body(pprof(report, str(ours))) == body(known)


def test_figures_of_a_program_that_nobody_changed_are_those_of_pprof(tmp_path: Path) -> None:
    again = tmp_path / "again"
    with running_prometheus(tmp_path) as program:
        for kind in ("heap", "goroutine"):
            file = tmp_path / kind
            with urllib.request.urlopen(f"{program.url}/debug/pprof/{kind}", timeout=20) as response:
                file.write_bytes(response.read())
            profile = read_profile(str(file))
            again.write_bytes(encode(profile))
            assert pprof("-raw", str(again)) == pprof("-raw", str(file))
            same_as_pprof(profile, str(file))
            assert len(profile.samples) > 10


def body(printed: str) -> list[str]:
    """Return what follows the heading, in which pprof tells the times of the files."""
    return sorted(printed[printed.find("\n---") :].splitlines())


def test_pprof_shows_first_what_we_say_is_first(files: dict[str, Path]) -> None:
    for file, first in (("heap.after", "inuse_space"), ("allocs.after", "alloc_space"), ("cpu", "cpu")):
        profile = read_profile(str(files[file]))
        assert profile.sample_types[index_of(profile, None)].type == first
        assert f"Type: {first}\n" in pprof("-top", str(files[file]))
