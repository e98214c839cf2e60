"""Why a process takes the memory that it takes, as `gomem why` shows it: one page, or one JSON object."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import to_builtins
from rich.console import RenderableType

from gomem.exporters.json.report import plain_json
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.page import PageStyle, hanging, lines, section, words
from gomem.exporters.units import clean, seconds
from gomem.tracer.report.why import Judgement, Why

_WIDTHS = (60, 160)
_MOST_STEPS = 5


def why_json(found: Why) -> str:
    """Return it as one JSON object (schema gomem.why/1)."""
    return plain_json(to_builtins(found))


def why_text(found: Why, sheet: Sheet) -> str:
    """Return the page, as wide as the terminal."""
    width = max(_WIDTHS[0], min(sheet.width, _WIDTHS[1]))
    return set_page(_parts(found, PageStyle(width, sheet.blocks)), width, terminal=sheet.terminal)


def _parts(found: Why, look: PageStyle) -> Iterator[RenderableType]:
    process = found.process
    name = clean(os.path.basename(process.exe) or "?", 40)
    watched = f"watched {seconds(found.watched_seconds)}" if found.watched_seconds else "one look"
    yield words((name, "heading"), f"  {clean(process.go_version or 'no Go found', 40)}, pid {process.pid}, {watched}")
    yield words((found.verdict, "bold"))
    yield words(found.made_of)
    causes = [one for one in found.judgements if one.outcome == "it-is"]
    for title, some in (
        ("Found", [one for one in causes if not one.harmless]),
        ("Looks odd, and is harmless", [one for one in causes if one.harmless]),
    ):
        if some:
            yield section(title, *(_cause(found, one) for one in some))
    for title, outcome in (("Ruled out", "ruled-out"), ("Could not be told", "not-told")):
        told = [
            words(f"- {one.sentence[:1].upper()}{one.sentence[1:]}")
            for one in found.judgements
            if one.outcome == outcome
        ]
        if told:
            yield section(title, *told)
    if found.next:
        steps = found.next[:_MOST_STEPS]
        yield section("What to do next", *(words(f"{at}. {step}") for at, step in enumerate(steps, 1)))
    gaps = [words((limit.what, "heading"), f": {limit.why}") for limit in found.limits if limit.kind == "gap"]
    if gaps:
        yield section("Not seen", *gaps)


def _cause(found: Why, judged: Judgement) -> RenderableType:
    label = {"info": "info", "warning": "warn", "critical": "CRIT"}[judged.severity or "info"]
    said = [
        words((finding.title, "heading"), f"  {finding.explanation}")
        for finding in found.findings
        if finding.id in judged.findings
    ]
    return hanging(words((label, judged.severity or "info")), lines(*said))
