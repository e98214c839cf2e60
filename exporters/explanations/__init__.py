"""What words and findings mean: the pages that `gomem explain` prints, and that the site has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FINDING = re.compile(r"^## ([a-z0-9-]+)\n\n(.*?)\n\nSources: (.*?)\.?\n(?=\n## |\Z)", re.MULTILINE | re.DOTALL)
_TERM = re.compile(r"^\| ([^|]+) \| (.+) \| ([^|]+) \|$", re.MULTILINE)
_HEADER = {"word", "---"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`name` as it is asked for; `text` and `sources` are one paragraph each. `finding`: it is one, not a word."""

    name: str
    text: str
    sources: str
    finding: bool


@cache
def explanations() -> dict[str, Explanation]:
    """Return all by name. Words that the glossary explains in one row ("M, P, G") have the row each."""
    pages = {name: (files(__name__) / f"{name}.md").read_text() for name in ("findings", "glossary")}
    found = {
        name: Explanation(name, " ".join(text.split()), " ".join(sources.split()), finding=True)
        for name, text, sources in _FINDING.findall(pages["findings"])
    }
    for words, meaning, where in _TERM.findall(pages["glossary"]):
        for word in words.split(", "):
            if word not in _HEADER:
                found.setdefault(word, Explanation(word, f"{words}: {meaning}.", where.replace("`", ""), finding=False))
    return found
