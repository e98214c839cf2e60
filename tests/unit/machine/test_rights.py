from __future__ import annotations

import pytest
from msgspec.structs import replace

from gomem.tracer.machine.capabilities import CAPABILITIES
from gomem.tracer.machine.rights import Own, Right, Theirs, hidden_by_proc, judged, newer_kernel, remedy

ALL = frozenset(f"CAP_{name}" for name in CAPABILITIES)
ROOT = Own(0, 0, ALL, ALL, release=(6, 18))
THEIRS = Theirs((1000,) * 3, (1000,) * 3, frozenset(), "user:[4026531837]", owner=1000)


def without(*names: str, me: Own = ROOT) -> Own:
    return replace(me, effective=me.effective - set(names))


@pytest.mark.parametrize("right", [right for right in Right if right is not Right.PROCESS_EVENTS])
def test_whoever_has_all_is_told_of_no_capability_that_is_missing(right: Right) -> None:
    assert "lacks" not in remedy(right, ROOT)
    assert "security module" in remedy(right, ROOT)


@pytest.mark.parametrize("missing", ["CAP_BPF", "CAP_PERFMON"])
def test_of_two_capabilities_the_one_that_is_missing_is_named(missing: str) -> None:
    told = remedy(Right.BPF, without(missing, "CAP_SYS_ADMIN"))
    assert missing in told
    assert ({"CAP_BPF", "CAP_PERFMON"} - {missing}).pop() not in told
    assert "lacks" not in remedy(Right.BPF, without(missing))  # CAP_SYS_ADMIN stands in


def test_a_capability_that_the_kernel_does_not_know_is_not_asked_for() -> None:
    told = remedy(Right.BPF, replace(without("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"), last_capability=37))
    assert "CAP_SYS_ADMIN" in told
    assert "CAP_BPF" not in told


def test_how_a_capability_is_given_depends_on_why_it_is_missing() -> None:
    lacking = without("CAP_SYS_PTRACE")
    assert "start it with that" in judged(THEIRS, lacking, attach=True)
    assert "run it as root" in judged(THEIRS, replace(lacking, uid=7), attach=True)
    in_pod = judged(THEIRS, replace(lacking, bounding=ALL - {"CAP_SYS_PTRACE"}), attach=True)
    assert "capabilities.add: [SYS_PTRACE]" in in_pod


def test_a_file_of_another_user_takes_ptrace_and_its_mode_takes_dac() -> None:
    assert "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH" in judged(
        THEIRS, without("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), attach=True
    )
    told = judged(THEIRS, without("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), attach=True)
    assert "lacks CAP_DAC_READ_SEARCH" in told
    assert "PTRACE" not in told
    told = judged(replace(THEIRS, owner=None), without("CAP_SYS_PTRACE"), attach=False)
    assert "lacks CAP_SYS_PTRACE" in told
    assert "DAC" not in told


def test_ones_own_process_is_refused_by_yama_or_by_what_it_may_do() -> None:
    nobody = Own(1000, 1000, frozenset(), ALL, ptrace_scope="1", release=(6, 1))
    told = judged(THEIRS, nobody, attach=True)
    assert "CAP_SYS_PTRACE" in told
    assert "ptrace_scope is 1" in told
    assert "ptrace_scope" not in judged(THEIRS, replace(nobody, ptrace_scope="0"), attach=True)
    assert "set it to 2 or less" in judged(THEIRS, replace(ROOT, ptrace_scope="3"), attach=True)


def test_in_a_user_namespace_capabilities_are_not_what_is_missing() -> None:
    nested = replace(ROOT, user_namespace="user:[4026539999]")
    for told in (remedy(Right.BPF, nested), judged(THEIRS, nested, attach=True)):
        assert "user:[4026539999]" in told
        assert "lacks" not in told


def test_a_filter_is_named_only_where_it_was_found() -> None:
    assert "seccomp filter forbids bpf" in remedy(Right.BPF, replace(ROOT, filtered=frozenset({"bpf"})))
    assert "seccomp" not in remedy(Right.BPF, ROOT)


def test_no_kernel_is_called_too_old_that_is_not() -> None:
    assert newer_kernel((6, 7), me=replace(ROOT, release=(6, 1))) == "needs Linux 6.7; this is 6.1"
    assert "needs Linux" not in newer_kernel((6, 7), me=ROOT)
    assert "lacks" not in remedy(Right.PROCESS_EVENTS, without("CAP_NET_ADMIN"))  # not needed since 6.6
    assert "CAP_NET_ADMIN" in remedy(Right.PROCESS_EVENTS, replace(without("CAP_NET_ADMIN"), release=(6, 1)))


def test_hidden_processes_are_told_of_to_those_from_whom_they_are_hidden() -> None:
    hiding = replace(ROOT, hidepid="hidepid=2")
    assert hidden_by_proc(hiding) == hidden_by_proc(ROOT) == ""
    assert "hidepid=2" in hidden_by_proc(without("CAP_SYS_PTRACE", me=hiding))


@pytest.mark.parametrize(
    ("release", "locked", "told"), [((5, 10), 8 << 20, True), ((5, 11), 8 << 20, False), ((5, 10), None, False)]
)
def test_before_5_11_bpf_takes_locked_memory(release: tuple[int, int], locked: int | None, told: bool) -> None:
    me = Own(0, 0, ALL, ALL, release=release, locked=locked)
    said = remedy(Right.BPF, me)
    assert ("8192 KiB" in said and "LimitMEMLOCK" in said) == told
    assert "LimitMEMLOCK" not in remedy(Right.MOUNT, me)
