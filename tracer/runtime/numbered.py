"""Numbers in place of 64-bit words: of words that are few, each is kept once, and named by 4 bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.errors import SnapshotError
from gomem.tracer.process.memory import Words

Numbers = NDArray[np.uint32]

_SLOTS = 1 << 16


class Numbered:
    """Numbers words in the order in which they are met.

    A table has nearly all of them, by their lowest bits; those whose slot another word has are looked up one by one.
    """

    def __init__(self, most: int, too_many: str) -> None:
        """`most` different words are taken; `too_many` is what the error for more says."""
        self._most = most
        self._too_many = too_many
        self._words: list[int] = []
        self._word = np.zeros(_SLOTS, np.uint64)
        self._word[0] = 1  # an empty slot has a word that belongs to another
        self._number = np.zeros(_SLOTS, np.uint32)
        self._taken = bytearray(_SLOTS)
        self._others: dict[int, int] = {}

    def of(self, words: Words) -> Numbers:
        """Return the number of each word. Raises SnapshotError where there are more different ones than are taken."""
        slot = (words & np.uint64(_SLOTS - 1)).view(np.int64)
        numbers = self._number[slot]
        missed = np.flatnonzero(self._word[slot] != words)
        if len(missed):
            different, which = np.unique(words[missed], return_inverse=True)
            numbers[missed] = np.array([self._number_of(word) for word in different.tolist()], np.uint32)[which]
        return numbers

    def words(self) -> Words:
        """Return the words by their numbers, shape (how many there are,)."""
        return np.array(self._words, np.uint64)

    def _number_of(self, word: int) -> int:
        slot = word % _SLOTS
        if self._taken[slot] and self._word[slot] == word:
            return int(self._number[slot])
        known = self._others.get(word)
        if known is not None:
            return known
        number = len(self._words)
        if number == self._most:
            raise SnapshotError(self._too_many)
        self._words.append(word)
        if self._taken[slot]:
            self._others[word] = number
        else:
            self._taken[slot] = 1
            self._word[slot], self._number[slot] = word, number
        return number


def runs(start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `count` indices from each `start` on, one run behind the other."""
    end = np.cumsum(count)
    return np.repeat(start - (end - count), count) + np.arange(int(count.sum()))
