"""The memory syscalls of a Go process, compared with what it says itself and with what strace saw."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from gomem.tracer.events.record import MAX_STACK, EventBatch, EventKind
from tests.support.bpf.tracing import gather, opened, tracing
from tests.support.builds import build
from tests.support.processes import running
from tests.support.requirements import program

pytestmark = pytest.mark.bpf

ARGUMENTS = {"mmap": 6, "munmap": 2, "mremap": 5, "mprotect": 3, "madvise": 3, "process_madvise": 5, "brk": 1}
Call = tuple[str, tuple[int, ...], int]


def traced_calls(binary: Path) -> tuple[EventBatch, list[Call]]:
    """Trace tests/targets/mappings; return the events and what the program wrote of its own calls."""
    with running(binary) as process, tracing(process.pid) as source:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        said: list[Call] = []
        while line := process.stdout.readline().strip():
            told = json.loads(line)
            said.append((told["name"], tuple(told["args"][: ARGUMENTS[told["name"]]]), told["result"]))
        source.stop()
        events = source.poll(0)
        assert source.lost == 0
    return events, said


def as_calls(events: EventBatch) -> list[Call]:
    calls = []
    for event in events:
        name = EventKind(event["kind"]).name.lower()
        if name in ARGUMENTS:
            args = tuple(int(arg) for arg in event["args"])
            assert not any(args[ARGUMENTS[name] :]), "arguments that the call does not have are 0"
            calls.append((name, args[: ARGUMENTS[name]], int(event["result"])))
    return calls


def is_subsequence(part: list[Call], whole: list[Call]) -> bool:
    rest = iter(whole)
    return all(call in rest for call in part)


def test_every_call_is_seen_with_its_arguments_and_result(release: str) -> None:
    events, said = traced_calls(build("mappings", release))
    assert len(said) == 4 * 8 + 3 + 6
    assert is_subsequence(said, as_calls(events))
    assert (events["time"] >= events["entered"]).all()
    assert (events["entered"] > 0).all()
    assert (events["time"][1:] >= events["time"][:-1]).all()


def test_the_stack_of_a_call_leads_from_the_instruction_to_main(release: str) -> None:
    path = build("mappings", release)
    events, _ = traced_calls(path)
    with opened(path, release) as binary:
        stacks = [
            [binary.name_at(int(address)) for address in event["stack"][: event["depth"]]]
            for event in events
            if event["kind"] == EventKind.MREMAP
        ]
    assert len(stacks) == 5
    for stack in stacks:
        assert stack[0].endswith(".Syscall6")  # its package moved more than once
        assert stack[-3:] == ["main.main", "runtime.main", "runtime.goexit"]
        callers = stack[1:-3]
        assert "main.do" in callers
        # nobody twice, nobody left out: the frameless Syscall6 was called by the first function after it
        assert len(callers) == len(set(callers)), stack
        assert len(stack) <= MAX_STACK


def test_strace_of_the_same_program_saw_the_same_calls(tmp_path: Path) -> None:
    strace = program("strace", "strace")
    binary = build("mappings", "1.25.5")
    log = tmp_path / "log"
    trace = "trace=" + ",".join(ARGUMENTS)
    command = [strace, "-f", "-X", "raw", "-e", trace, "-e", "signal=none", "-o", str(log), str(binary)]
    subprocess.run(command, input=b"\n", check=True, stdout=subprocess.DEVNULL, timeout=60)
    # the first call of the sequence is the only mmap of 4096 bytes with PROT_NONE
    by_strace = [shape(call) for call in parse_strace(log.read_text())]
    events, said = traced_calls(binary)
    by_bpf = [shape(call) for call in as_calls(events)]
    own = [shape(call) for call in said]
    assert trimmed(by_strace, own) == trimmed(by_bpf, own) == own


def parse_strace(text: str) -> list[Call]:
    calls = []
    for line in text.splitlines():
        found = re.match(r"\d+\s+(\w+)\((.*?)\)\s+= (-?\w+)(?: (E\w+))?", line)
        if found:
            words = re.split(r",\s*", found[2])
            args = tuple(int(word, 0) % 2**64 if word != "NULL" else 0 for word in words if is_number(word))
            calls.append((found[1], args, -1 if found[4] else int(found[3], 0)))
    return calls


def is_number(word: str) -> bool:
    return bool(re.fullmatch(r"-?\d+|0x[0-9a-f]+|NULL", word))


def shape(call: Call) -> tuple[str, tuple[int, ...], bool]:
    """Return what does not depend on where the kernel put a mapping: name, small arguments, success."""
    name, args, result = call
    if name in ("brk", "process_madvise"):  # the heap's end differs; strace prints an iovec, not its address
        return name, (), result < 0
    if name == "mremap":  # strace leaves out a fifth argument that the flags do not ask for
        args = args[:4]
    return name, tuple(arg % 2**32 for arg in args if arg < 1 << 32 or arg == 2**64 - 1), result < 0


def trimmed(
    calls: list[tuple[str, tuple[int, ...], bool]], own: list[tuple[str, tuple[int, ...], bool]]
) -> list[tuple[str, tuple[int, ...], bool]]:
    """Leave out what the Go runtime did before, between and after the program's own calls."""
    kept = []
    wanted = iter(own)
    want = next(wanted, None)
    for call in calls:
        if call == want:
            kept.append(call)
            want = next(wanted, None)
    return kept


def test_a_process_that_is_not_the_target_is_not_seen() -> None:
    binary = build("mappings", "1.25.5")
    with running(binary) as target, tracing(target.pid) as source:
        subprocess.run([binary], input=b"\n", check=True, stdout=subprocess.DEVNULL, timeout=60)
        assert target.stdin is not None
        target.stdin.write(b"\n")
        target.stdin.flush()
        events = gather(source, EventKind.PROCESS_MADVISE)
        assert list(events["kind"]).count(EventKind.PROCESS_MADVISE) == 1
        assert all(Path(f"/proc/{target.pid}/task/{tid}").exists() for tid in set(events["tid"].tolist()))
