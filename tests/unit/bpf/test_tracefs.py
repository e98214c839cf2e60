from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.probes.tracefs import parse_format

RSS_STAT = """name: rss_stat
ID: 646
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned int mm_id;\toffset:8;\tsize:4;\tsigned:0;
\tfield:unsigned int curr;\toffset:12;\tsize:4;\tsigned:0;
\tfield:int member;\toffset:16;\tsize:4;\tsigned:1;
\tfield:long size;\toffset:24;\tsize:8;\tsigned:1;
\tfield:char name[16];\toffset:32;\tsize:16;\tsigned:0;

print fmt: "mm_id=%u curr=%d type=%s size=%ldB", REC->mm_id, REC->curr, __print_symbolic(REC->member, \
{ 0, "MM_FILEPAGES" }, { 1, "MM_ANONPAGES" }, { 2, "MM_SWAPENTS" }, { 3, "MM_SHMEMPAGES" }), REC->size
"""


def test_a_format_tells_the_id_the_fields_and_the_numbers_of_names() -> None:
    found = parse_format(RSS_STAT)
    assert found is not None
    assert found.id == 646
    assert found.fields["size"] == (24, 8)
    assert found.fields["mm_id"] == (8, 4)
    assert found.fields["name"] == (32, 16)
    assert found.symbols == {"MM_FILEPAGES": 0, "MM_ANONPAGES": 1, "MM_SWAPENTS": 2, "MM_SHMEMPAGES": 3}


@given(st.text())
def test_what_is_no_format_is_none(text: str) -> None:
    assert parse_format(text.replace("ID", "")) is None
