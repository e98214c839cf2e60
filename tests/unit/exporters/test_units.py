from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.exporters.units import clean, number, percent, plural, seconds, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"), (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"), (10 * 1024 - 1, "10.0 KiB"), (64 << 20, "64.0 MiB"), (740 << 20, "740 MiB"),
        ((1 << 20) - 1, "1.00 MiB"), ((1 << 30) - 1, "1.00 GiB"), (1023 << 20, "1023 MiB"), (-2048, "-2.00 KiB"),
        ((1 << 64) - 1, "16.0 EiB"), (1 << 80, "1048576 EiB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits_and_a_binary_unit(count: int | None, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 1 << 63))
def test_a_size_is_short_and_right_to_one_percent(count: int) -> None:
    text = size(count)
    assert len(text) <= 8
    value, unit = text.split()
    exponent = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
    assert abs(float(value) * 1024**exponent - count) <= count / 100


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_sizes_keep_their_order(one: int, other: int) -> None:
    small, large = sorted((one, other))
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]

    def value(count: int) -> float:
        figure, unit = size(count).split()
        return float(figure) * float(1024 ** units.index(unit))

    assert value(small) <= value(large)


def test_shares_and_durations() -> None:
    assert [percent(1, 3), percent(1, 1000), percent(0, 5), percent(None, 5), percent(1, 0)] == [
        "33%", "<1%", "0%", "?", "0%",
    ]  # fmt: skip
    assert [seconds(0.0004), seconds(1.5), seconds(200), seconds(9000), seconds(None)] == [
        "0.40 ms", "1.50 s", "3 min 20 s", "2 h 30 min", "?",
    ]  # fmt: skip
    assert [plural(1, "span"), plural(2000, "span"), plural(2, "class", "classes"), number(None)] == [
        "1 span", "2,000 spans", "2 classes", "?",
    ]  # fmt: skip


@given(st.text())
def test_cleaned_words_hold_nothing_that_a_terminal_obeys(text: str) -> None:
    safe = clean(text)
    assert safe.isprintable()
    assert clean(safe) == safe
    if text.isprintable():
        assert safe == text


@given(st.text(), st.integers(8, 50))
def test_cleaned_words_keep_their_limit(text: str, limit: int) -> None:
    assert len(clean(text, limit)) <= limit


def test_escapes_are_readable() -> None:
    assert clean("\x1b[31m\n\x9b\u202e\udc80\U000e0001 ü") == "\\x1b[31m\\x0a\\x9b\\u202e\\x80\\U000e0001 ü"
    assert clean("/a/very/long/path/of/a/file", 15) == "/a/ver...a/file"
