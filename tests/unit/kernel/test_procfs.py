from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.proc.small_files import parse_stat, parse_status, printable, read_bounded

TAIL = (
    " S 1 2 3 4 -1 4194560 100 0 0 0 5 6 0 0 20 0 9 0 191058 12345 678 18446744073709551615 1 1 140723794652096 0 0"
    " 0 0 4096 134759427 0 0 0 17 1 0 0 0 0 0 94230212545328 94230212594464 94230577143808 140723794657871"
)


@pytest.mark.parametrize("comm", ["etcd", "a b", ") R 1 (", "((", "two\nlines", ""])
def test_a_comm_may_hold_anything(comm: str) -> None:
    stat = parse_stat(f"4711 ({comm}){TAIL}\n".encode())
    assert (stat.pid, stat.comm, stat.state, stat.threads) == (4711, comm, "S", 9)
    assert (stat.start_ticks, stat.start_code, stat.start_stack) == (191058, 1, 140723794652096)
    assert stat.start_break == 94230577143808
    assert not stat.is_kernel_thread
    assert not stat.is_dead


def test_kernel_threads_and_zombies_are_told() -> None:
    assert parse_stat(b"2 (kthreadd) S 0 0 0 0 -1 2129984" + b" 0" * 38).is_kernel_thread
    assert parse_stat(f"3 (x){TAIL}".replace(") S", ") Z").encode()).is_dead


@given(st.binary(max_size=200))
def test_a_broken_stat_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_stat(raw)


def test_status_is_read_in_bytes_and_a_missing_line_is_none() -> None:
    status = parse_status(
        b"Name:\tx\nTgid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t7\t3\t1\nVmSize:\t 1228 kB\nVmSwap:\t       0 kB\n"
        b"CapEff:\t000001fffeffffff\nThreads:\t4\n"
    )
    assert (status.tgid, status.uid, status.ns_pids, status.threads) == (7, 1000, (7, 3, 1), 4)
    assert (status.vm_size, status.vm_swap, status.cap_effective) == (1228 * 1024, 0, 0x1FFFEFFFFFF)
    assert (status.vm_rss, status.rss_shmem, status.hugetlb) == (None, None, None)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_status_parser_fail(raw: bytes) -> None:
    parse_status(raw)
    printable(raw).encode("utf-8")


@pytest.mark.parametrize(
    ("size", "limit", "cut"), [(0, 10, False), (10, 10, False), (11, 10, True), (600000, 500000, True)]
)
def test_a_bounded_read_stops_at_its_limit_and_says_so(size: int, limit: int, cut: bool) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * size)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        assert read_bounded(file.fileno(), limit) == (b"x" * min(size, limit), cut)
