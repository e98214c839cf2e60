from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.kernel.process_events import answered, control_message

ANSWER = struct.Struct("=IHHIIIIIIHHIIQI20x")


def answer(ack: int, what: int = 0, error: int = 0) -> bytes:
    """Return an event as cn_proc_ack of drivers/connector/cn_proc.c fills it in."""
    return ANSWER.pack(ANSWER.size, 3, 0, 7, 0, 1, 1, 7, ack, 40, 0, what, 1, 12345, error)


def test_the_request_to_listen_is_one_connector_message_with_one_word() -> None:
    raw = control_message(1, 0x1234)
    length, kind, flags, sequence, port, idx, val, seq, ack, size, cn_flags, operation = struct.unpack(
        "=IHHIIIIIIHHI", raw
    )
    assert (length, kind, flags, sequence, port) == (len(raw), 3, 0, 0, 0)
    assert (idx, val, seq, ack, size, cn_flags, operation) == (1, 1, 0, 0x1234, 4, 0, 1)


def test_only_the_answer_to_our_own_number_counts() -> None:
    assert answered(answer(42), 41) == 0
    assert answered(answer(42, error=1), 41) == 1
    assert answered(answer(43), 41) is None
    assert answered(answer(0), 0xFFFF_FFFF) == 0


def test_an_event_is_no_answer() -> None:
    assert answered(answer(42, what=2), 41) is None


@given(st.binary(max_size=100), st.integers(0, 0xFFFF_FFFF))
def test_any_bytes_are_judged(raw: bytes, number: int) -> None:
    answered(raw, number)
