"""Sizes get the class that the runtime gives them."""

from __future__ import annotations

import pytest

from gomem.tracer.layout.tables import table_for
from gomem.tracer.runtime.size_classes import SizeClasses


def size_classes(release: str) -> SizeClasses:
    layout = table_for(f"go{release}", "amd64")
    assert layout is not None
    return SizeClasses.of(layout)


@pytest.mark.parametrize("release", ["1.19", "1.22.10", "1.27.3"])
def test_each_size_has_the_smallest_class_that_is_large_enough(release: str) -> None:
    sizes = size_classes(release)
    table = sizes.by_size()
    assert len(table) == 32768 // 8 + 1
    for size in range(1, sizes.most_small + sizes.header + 1):
        number = table[(size + 7) // 8]
        assert sizes.sizes[number] >= size > sizes.sizes[number - 1]
    assert sizes.sizes[sizes.tiny_class] == sizes.most_tiny == 16


def test_headers_came_with_go_1_22() -> None:
    before, since = size_classes("1.21.13"), size_classes("1.22.10")
    assert (before.header, before.most_small) == (0, 32768)
    assert (since.header, since.most_small, since.most_without_header) == (8, 32760, 512)
