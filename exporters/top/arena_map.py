"""The heap's pages as characters: each half of a block, or each dot of a braille character, is some pages in a row.

Pure: a memory map in, lines of text out. The colour is what the runtime says, how bright it is what the kernel says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

from gomem.exporters.units import short_size, size
from gomem.tracer.report.memory_map import PAGE, MemoryMap, PageBits, PageUse

# How a state is called, its colour where most of it is in RAM, and where most of it is not.
STATES = {
    PageUse.IN_USE: ("in use", "bright_green", "green"),
    PageUse.STACK: ("stacks", "bright_cyan", "cyan"),
    PageUse.WORK_BUF: ("work buffers", "bright_magenta", "magenta"),
    PageUse.FREE: ("free", "bright_yellow", "yellow"),
    PageUse.SCAVENGED: ("scavenged", "bright_red", "blue"),  # in RAM all the same: a contradiction
    PageUse.NOT_GROWN: ("not grown", "bright_black", "bright_black"),
}
_USE_BITS = 7
_UPPER, _BRAILLE = "▀", 0x2800
# Which bit of a braille character is at which row and column (Unicode 15, chapter 21.1).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint16)
_MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Cells:
    """Some pages in a row each: their commonest state (PageUse), and which share of them is in RAM; shape (n,)."""

    state: NDArray[np.uint8]
    resident: NDArray[np.float64]


def cells_of(pages: NDArray[np.uint8], each: int) -> Cells:
    """Return the cells of so many pages each; `pages` as in MemoryMap."""
    count = ceil(len(pages) / each)
    padded = np.full(count * each, PageUse.NOT_GROWN, np.uint8)
    padded[: len(pages)] = pages
    rows = padded.reshape(count, each)
    use = rows & _USE_BITS
    # What is not grown shows only where there is nothing else.
    counts = np.stack([(use == state).sum(axis=1) for state in PageUse], axis=1)
    counts[:, PageUse.NOT_GROWN] = np.minimum(counts[:, PageUse.NOT_GROWN], 0 + (counts[:, :-1].sum(axis=1) == 0))
    state = counts.argmax(axis=1).astype(np.uint8)
    in_state = use == state[:, None]
    bits = (rows & int(PageBits.FIRST_RESIDENT) != 0).astype(np.uint8) + (rows & int(PageBits.SECOND_RESIDENT) != 0)
    resident = (bits * in_state).sum(axis=1) / np.maximum(2 * in_state.sum(axis=1), 1)
    return Cells(state, resident)


def arena_lines(shown: MemoryMap, width: int, height: int, *, dots: bool) -> list[Text]:
    """Return the map in lines of at most `width` characters; as many pages a cell as it takes to fit `height` lines.

    With `dots` in braille, which needs no colour: a dot is pages of which half or more are in RAM.
    """
    across, down = (2 * width, 4) if dots else (width, 2)
    arenas = list(_arenas(shown))
    each = 1
    while _height(arenas, each, across * down) > max(height, len(arenas) + 1) and each < 1 << 20:
        each *= 2
    lines = [legend(shown, each, dots=dots)]
    for base, whole, resident, pages in arenas[:_MOST_LINES]:
        lines.append(Text(f"{base:#x}  {size(whole)}, {size(resident)} in RAM", style="dim"))
        cells = cells_of(pages, each)
        lines += _braille(cells, width) if dots else _halves(cells, width)
        if len(lines) > _MOST_LINES:
            lines.append(Text("and more"))
            break
    return lines


def legend(shown: MemoryMap, each: int, *, dots: bool) -> Text:
    """Return what the colours mean, how much there is of each state, and what a cell is."""
    use = np.bincount(shown.pages & _USE_BITS, minlength=len(PageUse))
    in_ram = np.bincount(
        shown.pages & _USE_BITS,
        weights=((shown.pages & 8) > 0).astype(np.int64) + ((shown.pages & 16) > 0),
        minlength=len(PageUse),
    )
    line = Text()
    for state, (name, bright, dim) in STATES.items():
        if not use[state] or state == PageUse.NOT_GROWN:
            continue
        line.append("■", style=dim if state == PageUse.SCAVENGED else bright)
        line.append(f" {name} {short_size(int(in_ram[state]) * PAGE // 2)}/{short_size(int(use[state]) * PAGE)}  ")
    what = "a dot" if dots else "bright, red where it was given back"
    cell = "a dot" if dots else "▀"
    line.append(f"\nin RAM/all; in RAM is {what}; {cell} has {size(each * PAGE)}", style="dim")
    return line


def _arenas(shown: MemoryMap) -> Iterator[tuple[int, int, int, NDArray[np.uint8]]]:
    """Yield address, bytes, bytes in RAM and pages of each arena, without what is not grown at its end."""
    at = 0
    for base, whole, resident in zip(
        shown.arenas.base.tolist(), shown.arenas.size.tolist(), shown.arenas.resident.tolist(), strict=True
    ):
        count = whole // PAGE
        pages = shown.pages[at : at + count]
        at += count
        grown = np.flatnonzero((pages & _USE_BITS) != PageUse.NOT_GROWN)
        if len(grown):
            yield base, whole, resident, pages[: int(grown[-1]) + 1]


def _height(arenas: list[tuple[int, int, int, NDArray[np.uint8]]], each: int, a_line: int) -> int:
    return 2 + sum(1 + ceil(ceil(len(pages) / each) / a_line) for *_, pages in arenas)


def _halves(cells: Cells, width: int) -> Iterator[Text]:
    """Yield lines of blocks: the upper half of a character is the cell above, as a row of cells is half a line."""
    count = len(cells.state)
    for start in range(0, count, 2 * width):
        upper = range(start, min(start + width, count))
        line = Text(no_wrap=True)
        for at in upper:
            below = at + width
            colour = _colour(cells, at)
            if below < count:
                line.append(_UPPER, Style(color=colour, bgcolor=_colour(cells, below)))
            else:
                line.append(_UPPER, Style(color=colour))
        yield line


_COLOURS = {
    (state, lit): Color.parse(bright if lit else dim)
    for state, (_, bright, dim) in STATES.items()
    for lit in (True, False)
}


def _colour(cells: Cells, at: int) -> Color:
    return _COLOURS[PageUse(int(cells.state[at])), bool(cells.resident[at] >= 0.5)]


def _braille(cells: Cells, width: int) -> Iterator[Text]:
    count, a_line = len(cells.state), 8 * width
    for start in range(0, count, a_line):
        dots = np.zeros(a_line, np.bool_)
        part = cells.resident[start : start + a_line] >= 0.5
        dots[: len(part)] = part
        # Four rows of 2 * width dots, of which two by four are a character.
        grid = dots.reshape(4, width, 2).transpose(1, 0, 2)
        codes = (grid * _DOTS).sum(axis=(1, 2))
        last = min(width, ceil(len(part) / 2))
        yield Text("".join(chr(_BRAILLE + int(code)) for code in codes[:last]), no_wrap=True)
