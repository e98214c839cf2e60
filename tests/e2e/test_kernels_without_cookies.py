"""gomem where the kernel refuses bpf_get_attach_cookie, as those before Linux 5.15 do: each probe gets a program."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kernels.inside.exact import (  # noqa: F401
    test_events_are_exact_and_whole,
    test_optional_roles_and_allocations_are_seen,
    test_several_processes_are_followed_each_with_its_own_events,
)
from tests.support import command
from tests.support.command import gomem
from tests.support.cookies import command_without_cookies

pytestmark = pytest.mark.bpf


@pytest.fixture(autouse=True, scope="module")
def _without_cookies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "GOMEM", command_without_cookies(tmp_path_factory.mktemp("kernel")))
        yield


def test_the_doctor_says_how_uprobes_are_attached() -> None:
    done = gomem("doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["BPF programs"]["ok"] is True
    assert checks["uprobe_multi"]["ok"] is None
    assert "copy of the program for each probe" in checks["perf-event uprobes"]["detail"]
    assert checks["uprobes"]["ok"] is True
    assert checks["--allocs"]["ok"] is True
    assert "--budget 100" in checks["--allocs"]["detail"]
