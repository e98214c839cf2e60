"""Where the kernel keeps TS_COMPAT, told from how tasks looked at 64-bit and at 32-bit calls."""

from __future__ import annotations

from gomem.bpf.compat_trial import BYTES, TRIALS, TS_COMPAT, place

NOISE = [bytes((number * 37 + at * 11) & 0xFF for at in range(BYTES)) for number in range(TRIALS)]


def tasks(at: int, status: int) -> list[bytes]:
    return [one[:at] + status.to_bytes(4, "little") + one[at + 4 :] for one in NOISE]


def test_the_word_is_where_the_bit_follows_the_kind_of_call() -> None:
    for at in (8, 16, 60):
        assert place(tasks(at, 4), tasks(at, 4 | TS_COMPAT)) == at


def test_it_is_nowhere_where_one_call_says_something_else() -> None:
    compat = tasks(16, TS_COMPAT)
    assert place(tasks(16, 0), [*compat[:-1], tasks(16, 0)[-1]]) is None
    assert place(tasks(16, TS_COMPAT), compat) is None
    assert place(tasks(0, 0), tasks(0, TS_COMPAT)) is None
