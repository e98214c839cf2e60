"""`gomem explain`: what a word or a finding means."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from gomem.exporters.explanations import Explanation, explanations
from gomem.exporters.output import write_output
from gomem.tracer.cli.options import Format, page_options
from gomem.tracer.errors import UsageError

_PIPE = 100  # columns where nobody tells


class Word(click.ParamType[str]):
    """A word of the glossary, or the id of a finding; capitals do not matter."""

    name = "word"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return those that begin so."""
        return [CompletionItem(name) for name in explanations() if name.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("word", nargs=-1, type=Word(), metavar="[WORD]")
@page_options("Words for people, or one JSON object with the explanations.")
def explain(word: tuple[str, ...], form: Format, output: str | None) -> None:
    """Say what a WORD of a report or the id of a finding means, and where that is written. Without a WORD: list all.

    Words are those of the Go runtime and of the kernel: "scavenged", "live heap". Nothing is looked up elsewhere.
    """
    known = explanations()
    chosen = [_found(" ".join(word))] if word else list(known.values())
    if form == "json":
        write_output(json.dumps({"explanations": [asdict(one) for one in chosen]}, indent=2) + "\n", output)
        return
    width = shutil.get_terminal_size((_PIPE, 24)).columns if output is None and sys.stdout.isatty() else _PIPE
    write_output(_page(chosen[0], width) if word else _list(chosen, width), output)


def _found(asked: str) -> Explanation:
    by_name = {name.lower(): one for name, one in explanations().items()}
    if asked.lower() in by_name:
        return by_name[asked.lower()]
    near = [name for name in by_name if asked.lower() in name][:3] or get_close_matches(asked.lower(), by_name, n=3)
    fix = f"did you mean {' or '.join(by_name[name].name for name in near)}?" if near else "gomem explain lists all"
    raise UsageError(f"no word or finding is called {asked!r}", fix)


def _page(one: Explanation, width: int) -> str:
    return _set((one.name, one.text, f"Source: {one.sources}"), width)


def _list(chosen: list[Explanation], width: int) -> str:
    findings = ", ".join(one.name for one in chosen if one.finding)
    words = ", ".join(one.name for one in chosen if not one.finding)
    return _set(("Findings", findings, "Words", words), width)


def _set(parts: tuple[str, ...], width: int) -> str:
    """Return the parts as paragraphs of lines that fit."""
    return "\n\n".join(textwrap.fill(part, width, break_on_hyphens=False) for part in parts) + "\n"
