"""Numbers in place of words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import SnapshotError
from gomem.tracer.runtime.numbered import Numbered, runs

# Words that share their lowest bits want the same place.
WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 1 << 16, 5 << 16, (5 << 16) + 1, (1 << 64) - 1, 1 << 63])


@given(st.lists(st.lists(WORDS, max_size=30), max_size=6))
def test_a_number_stands_for_the_word_that_got_it(pieces: list[list[int]]) -> None:
    numbered = Numbered(1000, "too many")
    numbers = [numbered.of(np.array(words, np.uint64)) for words in pieces]
    known = numbered.words()
    assert [known[some].tolist() for some in numbers] == pieces
    assert sorted(known.tolist()) == sorted({word for words in pieces for word in words})


def test_no_more_words_are_taken_than_there_may_be() -> None:
    numbered = Numbered(10, "it names too many places")
    numbered.of(np.arange(10, dtype=np.uint64))
    numbered.of(np.arange(10, dtype=np.uint64))
    with pytest.raises(SnapshotError, match="it names too many places"):
        numbered.of(np.array([11], np.uint64))


def test_runs_are_one_behind_the_other() -> None:
    assert runs(np.array([5, 2, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert runs(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
