"""The parser of strace's lines: real logs, every notation, and arbitrary text."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.parser import MAX_LINE, Birth, StraceParser
from gomem.tracer.events.strace.symbols import SYMBOLS, argument_value

FIXTURES = Path(__file__).parent / "fixtures"
U64 = (1 << 64) - 1


def parse(text: str, moment: Callable[[int], int] = int) -> tuple[EventBatch, StraceParser]:
    parser = StraceParser(moment)
    events = np.concatenate([parser.feed(text.encode("latin-1")), parser.finish()])
    return events, parser


def only(text: str) -> np.void:
    events, parser = parse(text)
    assert parser.unparsed == 0
    assert len(events) == 1
    event: np.void = events[0]
    return event


def test_an_mmap_line_becomes_an_event_with_times_arguments_and_result() -> None:
    event = only(
        "9357  1795246876.075950 mmap(0xc000000000, 4194304, PROT_READ|PROT_WRITE, "
        "MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0xc000000000 <0.000015>\n"
    )
    assert event["tid"] == 9357
    assert event["kind"] == EventKind.MMAP
    assert event["entered"] == 1_795_246_876_075_950_000
    assert event["time"] == 1_795_246_876_075_965_000
    assert event["args"].tolist() == [0xC000000000, 4194304, 3, 0x32, U64, 0]
    assert event["result"] == 0xC000000000
    assert event["depth"] == 0


def test_a_32_bit_programs_mmap2_is_an_mmap() -> None:
    """As strace 6.1 writes it; strace has multiplied the offset by the page size already."""
    event = only("1796075543.768806 mmap2(0x20000000, 65536, PROT_READ, MAP_PRIVATE, 3, 0x2000) = 0x20000000 <0.1>\n")
    assert event["kind"] == EventKind.MMAP
    assert event["args"].tolist() == [0x20000000, 65536, 1, 2, 3, 0x2000]


def test_another_clock_has_both_times() -> None:
    events, _ = parse("7 100.5 munmap(0x1000, 4096) = 0 <0.25>\n", moment=lambda wall: wall - 99_000_000_000)
    assert events["entered"][0] == 1_500_000_000
    assert events["time"][0] == 1_750_000_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NULL", 0),
        ("-1", U64),
        ("0x7f0000000000", 0x7F0000000000),
        ("0x270f /* MADV_??? */", 9999),
        ("PROT_READ|PROT_WRITE|0x1000", 0x1003),
        ("PROT_READ|0x1000 /* PROT_??? */", 0x1001),
        ("MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|21<<MAP_HUGE_SHIFT", 0x22 | 0x40000 | 21 << 26),
        ("3</etc/ld.so.cache>", 3),
        ("MADV_COLLAPSE", 25),
        ("MADV_GUARD_INSTALL", 102),
        ("MREMAP_MAYMOVE|MREMAP_DONTUNMAP", 5),
    ],
)
def test_arguments_are_understood_in_every_notation(text: str, value: int) -> None:
    assert argument_value(text) == value


@pytest.mark.parametrize("text", ["", "MAP_FROM_THE_FUTURE", "PROT_READ|", "0x", "1<<OTHER_SHIFT", "'x'", "9" * 5000])
def test_an_argument_that_is_not_known_is_refused_not_guessed(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        argument_value(text)


def test_symbols_have_the_numbers_of_pythons_own_mmap_module() -> None:
    import mmap

    shared = [name for name in SYMBOLS if hasattr(mmap, name)]
    assert len(shared) > 20
    assert {name: getattr(mmap, name) for name in shared} == {name: SYMBOLS[name] for name in shared}


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        ("-1 ENOMEM (Cannot allocate memory) <0.000391>", -errno.ENOMEM),
        ("-1 EINVAL (Invalid argument)", -errno.EINVAL),
        ("0", 0),
        ("0x7f7c1dae0000 <0.000011>", 0x7F7C1DAE0000),
    ],
)
def test_results_are_values_or_minus_errno(outcome: str, result: int) -> None:
    assert only(f"1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, -1, 0) = {outcome}\n")["result"] == result


@pytest.mark.parametrize(
    "line",
    [
        "1796075543.768735 [ Process PID=17374 runs in 32 bit mode. ]",
        "1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, -1, 0) = ?",
        "1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, -1, 0) = ? ERESTARTNOINTR (To be restarted)",
        "1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, -1, 0 <unfinished ...>) = ?",
        "1 2.0 munmap(0x1000, 4096 <detached ...>",
        "1 2.0 --- SIGURG {si_signo=SIGURG, si_code=SI_TKILL, si_pid=9369, si_uid=0} ---",
        '1 2.0 openat(AT_FDCWD, ") = 0", O_RDONLY) = 3 <0.1>',
        "1 2.0 mincore(0x1000, 4096, [1]) = 0 <0.1>",
        "1 2.0 <... futex resumed>) = 0 <0.1>",
        "strace: Process 3725 attached",
        "/usr/bin/strace: Process 3725 attached with 4 threads",
        "",
    ],
)
def test_lines_that_are_no_event_are_understood_as_such(line: str) -> None:
    events, parser = parse(line + "\n")
    assert len(events) == 0
    assert parser.unparsed == 0


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "1 2.0 mmap(NULL, 4096) = 0x1000 <0.1>",
        "1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, -1, 0) = 0xzz",
        "1 2.0 mmap(NULL, 4096, PROT_NONE, MAP_PRIV",
        "1 2.0 <... mmap resumed>) = 0x1000 <0.1>",
        "1 2.0 +++ something else +++",
        "99999999999999999999 2.0 munmap(0x1000, 4096) = 0 <0.1>",
        "1 99999999999.0 munmap(0x1000, 4096) = 0 <0.1>",
        "1 2.0 brk(0x1) = 0x" + "f" * 40,
        "1 2.0 brk(0x1) = -1 ENOSUCHERRNO (what)",
    ],
)
def test_a_line_that_makes_no_sense_is_counted(line: str) -> None:
    events, parser = parse(line + "\n2 3.0 munmap(0x2000, 4096) = 0 <0.1>\n")
    assert events["tid"].tolist() == [2]
    assert parser.unparsed == 1


def test_interleaved_unfinished_calls_are_joined_by_thread() -> None:
    events, parser = parse(
        "[pid    11] 1.000001 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>\n"
        "[pid    12] 1.000002 munmap(0x5000, 8192 <unfinished ...>\n"
        "[pid    11] 1.000009 <... mmap resumed>) = 0x9000 <0.000008>\n"
        "[pid    13] 1.000010 madvise(0x1000, 4096, MADV_FREE) = 0 <0.000001>\n"
        "[pid    12] 1.000012 <... munmap resumed> ) = 0 <0.000020>\n"
    )
    assert parser.unparsed == 0
    assert events["tid"].tolist() == [11, 13, 12]
    assert events["entered"].tolist() == [1_000_001_000, 1_000_010_000, 1_000_002_000]
    assert events["time"].tolist() == [1_000_009_000, 1_000_011_000, 1_000_022_000]
    assert events["result"].tolist() == [0x9000, 0, 0]


def test_process_madvise_keeps_advice_and_advised_bytes() -> None:
    event = only(
        "5 1.0 process_madvise(4, [{iov_base=0x7f00, iov_len=4096}, {iov_base=0x8f00, iov_len=4096}], 2, MADV_COLD, 0)"
        " = 8192 <0.1>\n"
    )
    assert event["kind"] == EventKind.PROCESS_MADVISE
    assert event["args"].tolist() == [4, 0, 2, 20, 0, 0]
    assert event["result"] == 8192


def test_exits_carry_the_code_or_minus_the_signal() -> None:
    events, _ = parse("1 1.0 +++ exited with 3 +++\n2 2.0 +++ killed by SIGSEGV (core dumped) +++\n")
    assert events["kind"].tolist() == [EventKind.EXIT, EventKind.EXIT]
    assert events["result"].tolist() == [3, -11]


def test_only_an_execve_that_succeeds_is_an_exec() -> None:
    events, parser = parse(
        '1 1.0 execve("/a/x", ["x"], 0x7ffc /* 35 vars */) = -1 ENOENT (No such file or directory) <0.1>\n'
        '1 2.0 execve("/b/) = 7 \\"x", ["x"], 0x7ffc /* 35 vars */) = 0 <0.1>\n'
    )
    assert parser.unparsed == 0
    assert events["kind"].tolist() == [EventKind.EXEC]
    assert events["entered"].tolist() == [2_000_000_000]


@pytest.mark.parametrize(
    ("call", "child", "thread"),
    [
        ("clone(child_stack=0xc00004c000, flags=CLONE_VM|CLONE_THREAD|CLONE_SETTLS, tls=0x1) = 12", 12, True),
        ("clone(child_stack=0x24ad3dc04000, flags=0x50f00, tls=0x24ad3dc18090) = 12", 12, True),
        ("clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 12", 12, False),
        ("clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} => {parent_tid=[12]}, 88) = 12", 12, True),
        ("clone3({flags=0x3d0f00, exit_signal=0} => {parent_tid=[12]}, 88) = 12", 12, True),
        ("vfork() = 12", 12, False),
        ("fork() = 2 /* 12 in strace's PID NS */", 12, False),
    ],
)
def test_births_tell_threads_from_processes(call: str, child: int, thread: bool) -> None:
    events, parser = parse(f"11 1.0 {call} <0.000065>\n")
    assert len(events) == 0
    assert parser.unparsed == 0
    assert parser.take_births() == [Birth(11, child, thread)]
    assert parser.take_births() == []


CALLS = re.compile(r"\b(mmap|munmap|mremap|mprotect|madvise|brk)\((?:[^,)]+, (\d+))?")


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.glob("*.txt")))
@pytest.mark.parametrize("step", [1, 17, 4096])
def test_every_call_of_a_real_log_is_an_event_wherever_the_log_is_cut(name: str, step: int) -> None:
    raw = (FIXTURES / name).read_bytes()
    parser = StraceParser(default_tid=1)
    pieces = [parser.feed(raw[at : at + step]) for at in range(0, len(raw), step)]
    events = np.concatenate([*pieces, parser.finish()])
    assert parser.unparsed == 0
    calls = events[events["kind"] < EventKind.EXEC]
    # An independent count: each call is written once, whether in one line or begun and resumed.
    written = [match for line in raw.decode().splitlines() if "resumed>" not in line for match in CALLS.findall(line)]
    for kind in (
        EventKind.MMAP,
        EventKind.MUNMAP,
        EventKind.MREMAP,
        EventKind.MPROTECT,
        EventKind.MADVISE,
        EventKind.BRK,
    ):
        sizes = [int(size or 0) for call, size in written if call == kind.name.lower()]
        seen = calls[calls["kind"] == kind]
        assert len(seen) == len(sizes), kind
        if kind is not EventKind.BRK:
            assert sorted(seen["args"][:, 1].tolist()) == sorted(sizes)
    assert np.all(calls["time"] >= calls["entered"])


def test_the_start_of_go_1_27_reads_as_its_mallocinit() -> None:
    events, parser = parse((FIXTURES / "go1.27.3-raw.txt").read_text())
    assert events["kind"][0] == EventKind.EXEC
    mmaps = events[events["kind"] == EventKind.MMAP]
    reserved = mmaps[mmaps["args"][:, 2] == 0]
    # mpagealloc_64bit.go's five summary levels, the scavenge index, and one arena.
    assert reserved["args"][:, 1].tolist() == [
        131072, 1 << 20, 8 << 20, 64 << 20, 512 << 20, 512 << 20, 64 << 20
    ]  # fmt: skip
    assert all(birth.thread for birth in parser.take_births())


def test_an_execve_by_another_thread_takes_the_leaders_pid() -> None:
    events, parser = parse((FIXTURES / "threads-fork-exec.txt").read_text())
    execs = events[events["kind"] == EventKind.EXEC]
    leader = int(events["tid"][0])
    assert execs["tid"].tolist() == [leader, leader]
    births = parser.take_births()
    assert [birth.thread for birth in births] == [True, True, False, True]
    failed = events[events["result"] < 0]
    assert set(failed["result"][failed["kind"] == EventKind.MMAP].tolist()) == {-errno.EINVAL, -errno.ENOMEM}


addresses = st.integers(0, 1 << 47).map(lambda page: page & ~0xFFF)
lengths = st.integers(0, 1 << 47)
microseconds = st.integers(0, 10**6)
prot_flags = st.lists(st.sampled_from(["PROT_READ", "PROT_WRITE", "PROT_EXEC"]), unique=True, max_size=3)
map_flags = st.lists(st.sampled_from(["MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_FIXED"]), unique=True, min_size=1)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, EventKind, list[int], str, int]:
    """A call as strace writes it, and its kind, arguments, written result and result."""
    address, length = draw(addresses), draw(lengths)
    kind = draw(
        st.sampled_from(
            [EventKind.MMAP, EventKind.MUNMAP, EventKind.MADVISE, EventKind.MPROTECT, EventKind.MREMAP, EventKind.BRK]
        )
    )
    written = f"{address:#x}" if address else "NULL"
    if kind is EventKind.MMAP:
        prot, flags = draw(prot_flags), draw(map_flags)
        args = [address, length, sum(SYMBOLS[p] for p in prot), sum(SYMBOLS[f] for f in flags), U64, 0]
        inside = f"{written}, {length}, {'|'.join(prot) or 'PROT_NONE'}, {'|'.join(flags)}, -1, 0"
    elif kind is EventKind.MREMAP:
        args = [address, length, 2 * length, 1, 0, 0]
        inside = f"{written}, {length}, {2 * length}, MREMAP_MAYMOVE"
    elif kind is EventKind.BRK:
        args, inside = [address, 0, 0, 0, 0, 0], written
    else:
        number = draw(st.sampled_from(["0x3", "0x7"]))
        args, inside = [address, length, int(number, 0), 0, 0, 0], f"{written}, {length}, {number}"
    if kind is EventKind.MUNMAP:
        args, inside = [address, length, 0, 0, 0, 0], f"{written}, {length}"
    outcome, result = draw(
        st.sampled_from([("0", 0), ("0x7f1234560000", 0x7F1234560000), ("-1 ENOMEM (Cannot allocate memory)", -12)])
    )
    return f"{kind.name.lower()}({inside}", kind, args, outcome, result


@given(st.lists(st.tuples(st.integers(1, 5), calls(), microseconds, st.booleans()), max_size=30), st.integers(1, 200))
def test_what_strace_writes_of_an_event_is_read_back_as_the_event(
    written: list[tuple[int, tuple[str, EventKind, list[int], str, int], int, bool]], step: int
) -> None:
    lines: list[str] = []
    expected: list[tuple[int, ...]] = []
    resumed: dict[int, str] = {}
    for number, (tid, (begun, kind, args, outcome, result), took, split) in enumerate(written):
        if tid in resumed:
            lines.append(resumed.pop(tid))
        second = 1_700_000_000 + number
        name = begun.partition("(")[0]
        end = f") = {outcome} <{took // 10**6}.{took % 10**6:06}>"
        if split:
            lines.append(f"{tid}  {second}.000007 {begun} <unfinished ...>")
            resumed[tid] = f"{tid}  {second}.500000 <... {name} resumed>{end}"
        else:
            lines.append(f"{tid}  {second}.000007 {begun}{end}")
        entered = second * 10**9 + 7000
        expected.append((tid, kind, entered, entered + took * 1000, *args, result))
    lines += resumed.values()
    raw = "".join(line + "\n" for line in lines).encode()
    parser = StraceParser()
    events = np.concatenate([parser.feed(raw[at : at + step]) for at in range(0, len(raw), step)] + [parser.finish()])
    assert parser.unparsed == 0
    read = [
        (event["tid"], event["kind"], event["entered"], event["time"], *event["args"], event["result"])
        for event in events
    ]
    assert sorted(read) == sorted(expected)


pieces = st.sampled_from(
    ["1 2.0 ", "[pid 3] 4.5 ", "mmap(", "NULL, ", "0x10, ", "MAP_PRIVATE|", ") = ", "0x7f", "-1 ENOMEM", "<0.1>", "\n",
     " <unfinished ...>", "<... mmap resumed>", "+++ exited with 1 +++", "execve(", '"', "clone3({flags=", "[", "]",
     "<pid changed to 7 ...>", "process_madvise(", "?", "\x00", "--- SIG"]
)  # fmt: skip


@given(st.lists(st.one_of(pieces, st.text(max_size=10)), max_size=60).map("".join))
@example("1 2.0 process_madvise(4, [x) = 3\n")
@example("1 2.0 clone(flags=0xg) = 3\n")
@example("1 2.0 +++ killed by 9 +++\n")
def test_no_text_whatever_raises_or_is_passed_over_in_silence(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    parser = StraceParser()
    parser.feed(raw)
    parser.finish()
    assert 0 <= parser.unparsed <= raw.count(b"\n") + 1


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(raw: bytes) -> None:
    parser = StraceParser()
    parser.feed(raw)
    parser.finish()


def test_a_line_without_end_is_dropped_and_the_next_one_read() -> None:
    parser = StraceParser()
    for _ in range(100):
        assert len(parser.feed(b"x" * MAX_LINE)) == 0
    events = parser.feed(b"y\n1 2.0 munmap(0x1000, 4096) = 0 <0.1>\n")
    assert len(events) == 1
    assert parser.unparsed == 1


@pytest.mark.parametrize(
    "line",
    ["1 2.0 mmap(" + ") " * 30_000, "1 2.0 execve(" + " = " * 20_000, "1 2.0 clone(" + "flags=" * 10_000 + ") = 1",
     "1 2.0 brk(" + "|" * 60_000 + ") = 0", "1 2.0 brk(" + "/*" * 30_000 + ") = 0", "1 " * 30_000, "[pid " * 13_000,
     "1 2.0 brk(0x1) = 1 " + "E" * 60_000, "1 2.0 " + "<pid changed to " * 4000 + "...>"],
)  # fmt: skip
def test_hostile_lines_take_linear_time(line: str) -> None:
    parser = StraceParser()
    began = time.process_time()
    parser.feed(line.encode() + b"\n")
    assert time.process_time() - began < 0.5


def test_an_execve_of_another_thread_than_the_leader_ends_under_the_leaders_number() -> None:
    event = only(
        '104 10.0 execve("/bin/x", ["/bin/x"], 0xc0 /* 3 vars */ <unfinished ...>\n'
        "100 10.1 +++ superseded by execve in pid 104 +++\n"
        "100 10.2 <... execve resumed>) = 0 <0.2>\n"
    )
    assert (event["tid"], event["kind"]) == (100, EventKind.EXEC)
