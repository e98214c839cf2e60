"""name[] upon exposition text, held against what prometheus_client selects itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as openmetrics

from gomem.exporters.http.selection import select_families


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Gauge("a_bytes", "With a\nbreak", ["x"], registry=found).labels("# TYPE b gauge\n").set(1)
    Counter("b", "Counts.", registry=found).inc()
    Histogram("c_seconds", "Lasts.", registry=found).observe(1)
    Info("d", "Tells.", registry=found).info({"k": "v"})
    return found


WRITERS: list[Callable[..., bytes]] = [classic.generate_latest, openmetrics.generate_latest]
SAMPLES = {
    "a_bytes": "a_bytes", "b_total": "b", "c_seconds_bucket": "c_seconds", "c_seconds_count": "c_seconds",
    "d_info": "d",
}  # fmt: skip


def families(text: bytes) -> list[str]:
    return [line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_selects_its_family(write: Callable[..., bytes], sample: str) -> None:
    selected = select_families(write(registry()), {sample})
    assert {name.removesuffix("_total").removesuffix("_info") for name in families(selected)} == {SAMPLES[sample]}
    assert selected.endswith(b"# EOF\n") is (write is openmetrics.generate_latest)


@pytest.mark.parametrize("write", WRITERS)
def test_all_names_select_everything_and_none_nothing(write: Callable[..., bytes]) -> None:
    whole = write(registry())
    assert select_families(whole, {*families(whole)}) == whole
    assert families(select_families(whole, {"absent"})) == []


@settings(deadline=None)
@given(st.binary(max_size=300), st.sets(st.text(max_size=5), max_size=3))
def test_any_text_gives_some_of_its_lines(raw: bytes, names: set[str]) -> None:
    lines = raw.splitlines(keepends=True)
    for line in select_families(raw, names).splitlines(keepends=True):
        assert line in lines
