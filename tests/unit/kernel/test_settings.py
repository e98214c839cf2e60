from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.kernel.settings import chosen, worded
from gomem.tracer.kernel.smaps import parse_smaps

SMAPS = b"""\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Rss:                2048 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac sd hg
7f0000200000-7f0000201000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac nh
7f0000201000-7f0000202000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac
"""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("always [madvise] never", "madvise"),
        ("always defer [defer+madvise] madvise never", "defer+madvise"),
        ("", None),
        ("[]", None),
        ("[ALWAYS]", None),
    ],
)
def test_what_is_chosen_is_in_brackets(text: str, word: str | None) -> None:
    assert chosen(text) == word


def test_advice_on_huge_pages_is_told_by_mapping() -> None:
    smaps = parse_smaps(SMAPS)
    assert smaps.advised.tolist() == [True, False, False]
    assert smaps.refused.tolist() == [False, True, False]


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    chosen(text)
    worded(text)
