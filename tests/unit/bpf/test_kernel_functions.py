"""The ids that BTF gives functions. Format: Documentation/bpf/btf.rst."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf import kernel_functions
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.machine.rights import Own

INT, POINTER, STRUCT, FUNCTION, FLOAT, ENUM64 = 1, 2, 4, 12, 16, 19
BEHIND = {INT: 4, POINTER: 0, STRUCT: 12 * 2, FUNCTION: 0, FLOAT: 0, ENUM64: 12 * 2}  # bytes, of two parts each
NAMES = st.text("abc_", min_size=1, max_size=6)
TYPES = st.lists(st.tuples(st.sampled_from(sorted(BEHIND)), NAMES), max_size=12)


def btf(types: list[tuple[int, str]]) -> bytes:
    text, body = b"\0", b""
    for kind, name in types:
        at = text.find(b"\0" + name.encode() + b"\0") + 1  # each string is there once
        if not at:
            at = len(text)
            text += name.encode() + b"\0"
        parts = 2 if kind in (STRUCT, ENUM64) else 0
        body += struct.pack("<III", at, kind << 24 | parts, 0) + b"\xff" * BEHIND[kind]
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(text)) + body + text


@given(TYPES, st.lists(NAMES))
def test_each_function_has_its_place_among_the_types(types: list[tuple[int, str]], absent: list[str]) -> None:
    functions = {name: number for number, (kind, name) in reversed([*enumerate(types, 1)]) if kind == FUNCTION}
    assert kernel_functions.find(btf(types), {*functions, *absent}) == functions


@given(TYPES, st.integers(0, 200))
def test_what_is_cut_off_is_refused(types: list[tuple[int, str]], length: int) -> None:
    raw = btf(types)
    if length < len(raw):
        with pytest.raises(ValueError, match="BTF"):
            kernel_functions.find(raw[:length], ["a"])


@given(st.binary(max_size=100))
def test_anything_else_is_refused_or_has_no_function(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert kernel_functions.find(raw, ["mmap"]) == {}


@pytest.mark.parametrize("release", [(5, 10), (5, 15), (6, 0)])
def test_trampolines_of_older_kernels_are_not_trusted(release: tuple[int, int]) -> None:
    me = Own(uid=0, gid=0, effective=frozenset(), bounding=frozenset(), release=release)
    with pytest.raises(BackendUnavailable) as refused:
        kernel_functions.ensure_wanted(me)
    assert refused.value.fix == f"needs Linux 6.1; this is {release[0]}.{release[1]}"
