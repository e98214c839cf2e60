"""The section on allocations."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.exporters.text.report import render_text
from gomem.tracer.report import Allocations
from tests.support.samples.reports import allocating
from tests.unit.exporters.test_text import section


def page(**figures: object) -> str:
    report = allocating()
    assert report.allocations is not None
    changed: Allocations = replace(report.allocations, **figures)
    return section(render_text(replace(report, allocations=changed)), "Allocations")


def test_the_runtimes_counts_come_with_what_was_seen_and_what_an_estimate_is_worth() -> None:
    lines = page().splitlines()
    (row,) = [line for line in lines if line.strip().startswith("0 ")]
    assert row.split() == ["0", "large", "7,200", "950", "MiB", "12", "3", "9", "7,010", "+-21%"]
    assert "in 4 bursts" in " ".join(lines)
    assert "0.17% of all objects" in " ".join(lines)


def test_a_share_of_all_objects_is_told_in_plain_figures() -> None:
    assert "100% of all objects" in " ".join(page(coverage=1.0).split())
    assert "0.0041% of all objects" in " ".join(page(coverage=0.000041).split())


def test_a_call_site_is_a_function_with_its_line_or_an_address() -> None:
    told = page()
    assert "main.(*server).open server.go:214" in told
    assert "? (code at 0x7f1200001234)" in told
    assert "4 seen whose call stack found no room" in " ".join(told.split())


def test_a_type_without_a_name_says_why() -> None:
    told = page()
    assert "no type (strings" in told
    assert "? (type at 0xc000012340)" in told


def test_a_name_of_any_length_fits() -> None:
    assert all(len(line) <= 100 for line in page().splitlines())


def test_where_all_was_counted_the_page_says_so() -> None:
    told = page(complete=True, coverage=1.0, unseen_classes=0)
    assert "all were counted" in told
    assert "burst" not in told


def test_what_the_runtime_could_not_tell_is_no_zero() -> None:
    report = allocating()
    assert report.allocations is not None
    classes = [replace(row, runtime_objects=None, runtime_bytes=None) for row in report.allocations.classes]
    told = page(runtime_objects=None, runtime_bytes=None, coverage=None, classes=classes)
    assert "Allocations 77,722 seen" in told
    assert " ? " in told
