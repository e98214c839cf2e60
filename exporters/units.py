"""Figures and foreign words as people read them: the only place that formats either."""

from __future__ import annotations

import re

UNKNOWN = "?"
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def three_digits(value: float) -> str:
    """Return a number from 0 to 999 with three digits: `1.50`, `12.0`, `640`."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def size(count: int | float | None) -> str:
    """Return a number of bytes with three digits and a binary unit: `1.50 KiB`, `64.0 MiB`, `?` for None."""
    if count is None:
        return UNKNOWN
    sign, value = ("-" if count < 0 else ""), float(abs(count))
    if value < 1024:
        return f"{sign}{value:.0f} B"
    unit = 0
    # 1023.5 would print as "1024 KiB": it is 1.00 of the next unit.
    while value >= 1023.5 and unit < len(_BINARY_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{sign}{three_digits(value)} {_BINARY_UNITS[unit]}"


def short_size(count: int | float | None) -> str:
    """Return a number of bytes in at most five characters, six if it is negative: `64.0M`, `1.50K`, `?` for None.

    Units are powers of 1024, as in `size`.
    """
    return UNKNOWN if count is None else size(count).replace(" ", "").removesuffix("B").removesuffix("i")


def number(count: int | None) -> str:
    """Return a count with thousands separators; `?` for None."""
    return UNKNOWN if count is None else f"{count:,}"


def percent(part: int | float | None, whole: int | float | None) -> str:
    """Return `part` of `whole` as a percentage; `?` where either is unknown, `<1%` for a trace."""
    if part is None or whole is None:
        return UNKNOWN
    if whole <= 0:
        return "0%"
    share = 100 * part / whole
    if 0 < share < 1:
        return "<1%"
    return f"{share:.0f}%"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that fits: `0.40 ms`, `12.0 s`, `3 min 20 s`."""
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{three_digits(value * 1000)} ms"
    if value < 120:
        return f"{three_digits(value)} s"
    whole = round(value)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plural(count: int, noun: str, many: str = "") -> str:
    """Return `1 span`, `2 spans`, `2 searches` (with `many`)."""
    return f"{number(count)} {noun if count == 1 else many or noun + 's'}"


def _escape(match: re.Match[str]) -> str:
    return "".join(_escape_character(character) for character in match.group())


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, kept by surrogateescape
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


LONGEST = 2000  # characters of what a target can make as long as it likes; our own sentences are shorter
_NOT_ASCII_PRINTABLE = re.compile(r"[^ -~]+")


def clean(text: str, limit: int = LONGEST) -> str:
    r"""Return `text` with everything that a terminal could obey written out (`\x1b`, `\u202e`).

    Command lines, paths and mapping names belong to the target and are not to be trusted: control
    characters, C1 codes, bidirectional overrides and undecodable bytes never reach the terminal.
    A text that is longer than `limit` is cut in its middle, where paths are least telling; 0 is the default.
    """
    limit = limit or LONGEST
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + text[-2 * limit :]
    safe = _NOT_ASCII_PRINTABLE.sub(_escape, text)
    if len(safe) > limit:
        tail = (limit - 3) // 2
        safe = safe[: limit - 3 - tail] + "..." + safe[-tail:]
    return safe
