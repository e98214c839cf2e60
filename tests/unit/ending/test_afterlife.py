from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.cli.exit_codes import command_code
from gomem.tracer.ending.afterlife import WaitStatus, zombies_status
from gomem.tracer.report import ProcessEnding


@pytest.mark.parametrize(
    ("status", "code", "name", "core", "as_a_shell"),
    [
        (0, 0, None, False, 0),
        (3 << 8, 3, None, False, 3),
        (255 << 8, 255, None, False, 255),
        (9, None, "SIGKILL", False, 137),
        (11 | 0x80, None, "SIGSEGV", True, 139),
        (33, None, "signal 33", False, 161),
    ],
)
def test_a_wait_status_is_read_as_wait_does(
    status: int, code: int | None, name: str | None, core: bool, as_a_shell: int
) -> None:
    told = WaitStatus.parse(status)
    assert (told.code, told.signal_name, told.core_dumped) == (code, name, core)
    assert command_code(ProcessEnding(code, name, core)) == as_a_shell


def stat(state: str, threads: int, status: int, comm: str = "x") -> bytes:
    fields = [state, *["0"] * 16, str(threads), *["0"] * 31, str(status)]
    return f"7 ({comm}) {' '.join(fields)}\n".encode()


def test_a_zombies_status_stands_in_its_stat() -> None:
    assert zombies_status(stat("Z", 1, 768)) == 768
    assert zombies_status(stat("Z", 1, 9, comm="a) Z 1 (")) == 9


def test_who_lives_has_no_status() -> None:
    assert zombies_status(stat("S", 1, 0)) is None
    assert zombies_status(stat("Z", 3, 0)) is None, "its main thread has ended, two others run"


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(raw: bytes) -> None:
    zombies_status(raw)
