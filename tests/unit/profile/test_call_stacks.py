"""Stacks that are held as arrays are the sequence of tuples that they stand for."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.profile import call_stacks
from gomem.tracer.profile.call_stacks import CallStacks

STACKS = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple), max_size=12)


def joined(pieces: list[list[tuple[int, ...]]]) -> CallStacks:
    return CallStacks.joined(
        (
            np.array([len(stack) for stack in some], np.int64),
            np.array([one for stack in some for one in stack], np.uint32),
        )
        for some in pieces
    )


@given(st.lists(STACKS, max_size=4), st.integers(-14, 14), st.integers(1, 3))
def test_they_are_the_tuples_in_turn(pieces: list[list[tuple[int, ...]]], at: int, at_once: int) -> None:
    expected = [stack for some in pieces for stack in some]
    stacks = joined(pieces)
    with patch.object(call_stacks, "_ROWS_AT_ONCE", at_once):
        assert list(stacks) == expected
    assert len(stacks) == len(expected)
    assert stacks[at:] == expected[at:]
    if -len(expected) <= at < len(expected):
        assert stacks[at] == expected[at]
