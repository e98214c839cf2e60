"""The names that gomem knows are those that the runtime's sources hand to prctl."""

from __future__ import annotations

import re

import pytest

from gomem.tracer.snapshot.mapping_names import KIND_OF_NAME
from tests.support.toolchains import RELEASES, toolchain


@pytest.mark.parametrize("release", [release for release in RELEASES if release >= "1.25"])
def test_every_name_in_the_runtimes_source_is_known(release: str) -> None:
    call = re.compile(
        r'(?:sysAlloc|sysAllocOS|sysReserve|sysReserveAligned|sysMap|setVMAName|rena\w*\.alloc)\(.*"([^"]+)"\)'
        r'|vmaName\w+\s*=\s*"([^"]+)"'
    )
    names = set()
    for path in (toolchain(release) / "src" / "runtime").glob("*.go"):
        if path.name.endswith("_test.go"):
            continue
        names |= {one or other for one, other in call.findall(path.read_text())}
    assert {"heap", "gc bits", "immortal metadata", "page summary", "scavenge index"} <= names
    assert names - {"used", "unused"} <= set(KIND_OF_NAME)
