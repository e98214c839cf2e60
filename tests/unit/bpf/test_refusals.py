"""What kernels and the compiler said when they refused, in their words, and what a person is told of it."""

from __future__ import annotations

import pytest

from gomem.bpf import refusals
from gomem.tracer.errors import BackendUnavailable, GomemError
from gomem.tracer.machine import rights
from gomem.tracer.machine.rights import Own

NO_COOKIES = """\
bpf: Failed to load program: Invalid argument
; int on_uprobe(struct pt_regs *ctx)
0: (bf) r6 = r1
; cookie = bpf_get_attach_cookie(ctx);
41: (85) call unknown#174
invalid func unknown#174
processed 40 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 3 mark_read 3
"""  # Linux 5.10
NO_RING = "could not open bpf map: events, error: Invalid argument\n"  # Linux 4.19
REFUSED = """\
bpf: Failed to load program: Permission denied
0: (79) r1 = *(u64 *)(r1 +0)
R1 invalid mem access 'inv'
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def told(said: str) -> GomemError:
    with pytest.raises(GomemError) as caught:
        refusals.refused("the kernel refuses the BPF program on_uprobe", said, Exception("Failed to load"))
    return caught.value


@pytest.mark.parametrize(
    ("said", "lacks", "since"),
    [(NO_COOKIES, "bpf_get_attach_cookie", "5.15"), (NO_RING, "ring buffers", "5.8")],
)
def test_what_a_kernel_is_too_old_for_is_named_with_the_release_that_has_it(
    said: str, lacks: str, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "newer_kernel", lambda release: f"needs Linux {release[0]}.{release[1]}")
    error = told(said)
    assert isinstance(error, BackendUnavailable)
    assert error.what == f"this kernel's BPF has no {lacks}"
    assert error.fix == f"needs Linux {since}"


def test_a_kernel_of_red_hats_eighth_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "own", lambda: Own(0, 0, frozenset(), frozenset(), release=(4, 18)))
    error = told(NO_RING)
    assert (error.what, error.fix) == ("this kernel's BPF has no ring buffers", "needs Linux 5.8; this is 4.18")


@pytest.mark.parametrize("said", [NO_COOKIES, NO_RING, REFUSED])
def test_it_is_a_sentence_with_a_remedy_and_the_rest_is_for_debugging(said: str) -> None:
    error = told(said)
    assert "\n" not in error.what + error.fix
    assert error.fix
    assert said in error.detail
