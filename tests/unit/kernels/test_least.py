"""The smallest set is one of which nothing can be missing; what is written of it is what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels.least import Confined, Need, Rights, blocks, replaced, smallest
from tests.kernels.recorder import failure
from tests.kernels.results import SECURITY, kept, kept_here
from tests.support.under_seccomp import for_container

GROUPS = [frozenset({"A", "B", "C", "D"}), frozenset({"E"}), frozenset({"F"})]


@dataclass(frozen=True)
class Found:
    """What was found on a kernel."""

    kernel: str
    rights: Rights


@pytest.mark.parametrize("needed", ["", "E", "EF", "C", "ACF", "ABCDEF"])
def test_the_smallest_set_has_what_is_needed_and_no_more(needed: str) -> None:
    def lacks(has: frozenset[str]) -> str:
        return " ".join(sorted(set(needed) - has))

    assert smallest(GROUPS, lacks) == (frozenset(needed), {name: name for name in needed})


def test_of_two_that_stand_in_for_each_other_the_first_goes() -> None:
    found, said = smallest(GROUPS, lambda has: "" if has & {"E", "F"} else "E or F")
    assert (found, said) == (frozenset("F"), {"F": "E or F"})


def test_the_tables_have_each_mode_and_kernel_and_what_was_not_tried() -> None:
    old = Rights([Need("trace", ["CAP_BPF", "CAP_SYS_ADMIN"], {}, "no tracefs")], [Confined("here", "trace", "why")])
    new = Rights([Need("trace", ["CAP_BPF"], {}), Need("snapshot", [], {})], [Confined("here", "trace")])
    made = blocks([Found("1.0", old), Found("2.0", new), Found("3.0", Rights())])
    assert "| trace | `BPF` `SYS_ADMIN` | `BPF` |" in made["rights"]
    assert "| snapshot | not tried | none |" in made["rights"]
    assert "- trace on 1.0: no tracefs" in made["rights"]
    assert "3.0" not in made["rights"]
    assert "| trace, here | not all | works |" in made["surroundings"]
    assert "- trace, here, on 1.0: why" in made["surroundings"]


def test_the_page_has_the_tables_of_the_results() -> None:
    text = SECURITY.read_text()
    assert replaced(text, blocks([*kept(), *kept_here()])) == text, "python -m tests.kernels writes them"


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no single place for rights"):
        replaced("# nothing", {"rights": "x"})


def test_a_failure_is_what_pytest_marks_of_it() -> None:
    text = f"    assert a == 1\nE   assert 2 == {Path.cwd()}/1\nE    +  where 2 = a\n\nx.py:3: AssertionError"
    assert failure(text) == "assert 2 == ./1"
    assert failure("no mark\nlast") == "last"


def test_an_engine_takes_the_rules_for_the_capabilities_that_a_container_has() -> None:
    rules = [
        {"names": ["bpf"], "includes": {"caps": ["CAP_BPF"]}},
        {"names": ["bpf"], "excludes": {"caps": ["CAP_BPF"]}},
        {"names": ["read"], "includes": {}, "excludes": {}},
        {"names": ["modify_ldt"], "includes": {"arches": ["amd64", "x86"]}},
        {"names": ["set_tls"], "includes": {"arches": ["arm"]}},
    ]

    def taken(*has: str) -> list[int]:
        return [rules.index(rule) for rule in for_container({"syscalls": rules}, frozenset(has))["syscalls"]]

    assert taken("CAP_BPF", "CAP_KILL") == [0, 2, 3]
    assert taken() == [1, 2, 3]
