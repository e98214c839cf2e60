"""Profiles that Go programs wrote of themselves, read and written by us: go tool pprof sees no difference."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from gomem.exporters.pprof import profile_pb2 as pb
from gomem.exporters.pprof.decode import read_profile
from gomem.exporters.pprof.encode import encode
from tests.support.builds import build
from tests.support.pprof import pprof, top, written_by_go
from tests.support.samples.profiles import heap


@pytest.mark.live
@pytest.mark.parametrize("release", ["1.19", "1.23.9", "1.27.3"])
def test_what_go_wrote_is_the_same_when_we_wrote_it_again(release: str, tmp_path: Path) -> None:
    files = written_by_go(build("profiles", release), tmp_path)
    assert {file.name.partition(".")[0] for file in files} == {"allocs", "cpu", "goroutine", "heap"}
    for file in files:
        again = tmp_path / "again"
        again.write_bytes(encode(read_profile(str(file))))
        assert pprof("-raw", str(again)) == pprof("-raw", str(file))
        assert "main." in pprof("-top", str(again))
        assert "main." in pprof("-tree", str(again))
        assert "main." in pprof("-peek", "main", str(again))


@pytest.mark.live
def test_go_reads_names_of_any_bytes_as_they_are(tmp_path: Path) -> None:
    profile = heap(("main;caf\udce9", 1, 300), ("main;日本.(*T).f", 1, 100))
    profile = replace(
        profile, comments=("a; \x1b[31m \udcff",), mappings=(replace(profile.mappings[0], path="/\udcfe"),)
    )
    file = tmp_path / "any.pb.gz"
    file.write_bytes(encode(profile))
    assert {row.name for row in top(str(file), unit="B")} == {"main", "caf\udce9", "日本.(*T).f"}
    assert "Comment: a; \x1b[31m \udcff\n" in pprof("-raw", str(file))
    assert "0x1000/0x9000/0x0 /\udcfe abc123 [FN]" in pprof("-raw", str(file))


@pytest.mark.live
def test_what_other_writers_add_is_there_when_we_wrote_it_again(tmp_path: Path) -> None:
    """Columns of lines, units of labels, and which frames are to be dropped: Go's own profiles have none of these."""
    message = pb.Profile.FromString(gzip.decompress(encode(heap(("main;work;make", 3, 300), ("main;work", 1, 50)))))
    start = len(message.string_table)
    message.string_table.extend([b"latency", b"milliseconds", b"make"])
    message.sample[0].label.add(key=start, num=42, num_unit=start + 1)
    for column, location in enumerate(message.location, 71):
        location.line[0].column = column
    kept, again, dropped = (tmp_path / name for name in ("kept", "again", "dropped"))
    kept.write_bytes(gzip.compress(message.SerializeToString()))
    again.write_bytes(encode(read_profile(str(kept))))
    raw = pprof("-raw", str(again))
    assert raw == pprof("-raw", str(kept))
    assert ":10:71 s=0" in raw
    assert "42ms" in pprof("-tags", str(again))
    message.drop_frames = start + 2
    dropped.write_bytes(gzip.compress(message.SerializeToString()))
    again.write_bytes(encode(read_profile(str(dropped))))
    assert {row.name for row in top(str(again), unit="B")} == {"main", "work"}


def test_only_who_writes_or_reads_a_file_waits_for_protobuf() -> None:
    code = "import sys, gomem.tracer.cli.trace, gomem.exporters.pprof; sys.exit('google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
