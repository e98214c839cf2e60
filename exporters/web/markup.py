"""HTML made of parts that cannot be confused: text is escaped, markup is a type of its own."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporters.units import clean, percent, size

# Colours by custom property, so that dark mode is one block. No request to anywhere, no script.
STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#5b6675;--line:#dde2e8;--link:#0b5cad;
--reserved:#b6c8e2;--prepared:#5b93cf;--ready:#1d5fa8;--unmanaged:#c3a5d6;
--in_use:#2f855a;--stacks:#3aa6a0;--free:#d69a2d;--scavenged:#8a96a8;--rest:#c9a7a0;
--good:#1f7a4d;--warn:#9a5b00;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2028;--ink:#e4e8ee;--soft:#9aa6b5;--line:#2d3541;
--link:#7db7f5;--reserved:#34496a;--prepared:#4a7fb8;--ready:#7fb4ec;--unmanaged:#8a68a3;
--in_use:#4fb783;--stacks:#48bdb6;--free:#e0ad4c;--scavenged:#66717f;--rest:#94706a;
--good:#5cc591;--warn:#e5ac53;--bad:#f2877f}}
*{box-sizing:border-box}
body{overflow-wrap:anywhere;margin:0 auto;max-width:76rem;padding:1rem;background:var(--bg);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
a{color:var(--link)}
h1{font-size:1.35rem;margin:.2rem 0}
h2{font-size:1.05rem;margin:1.4rem 0 .4rem}
p{margin:.35rem 0}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;color:var(--soft)}
.soft{color:var(--soft)}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));margin-top:1rem;align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem;min-width:0}
.card h2{margin:0;display:flex;flex-wrap:wrap;gap:.1rem .6rem;align-items:baseline}
.path{font-family:ui-monospace,"Liberation Mono",monospace;font-size:.82rem;overflow-wrap:anywhere}
.state{font-size:.78rem;font-weight:600}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
svg{display:block;width:100%;height:.7rem;border-radius:.2rem;background:var(--line);margin:.45rem 0 .2rem}
.key{display:flex;flex-wrap:wrap;gap:.05rem .9rem;font-size:.82rem;color:var(--soft);padding:0;margin:0;list-style:none}
.key b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.key i{display:inline-block;width:.65rem;height:.65rem;border-radius:.15rem;margin-right:.3rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{overflow-wrap:normal;text-align:right;padding:.2rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{font-weight:600;color:var(--soft);font-size:.85rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.4rem 0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
@media(max-width:34rem){dl{grid-template-columns:1fr}dd{margin-bottom:.35rem}th,td{padding:.2rem .45rem}}
""" + "".join(
    f".{name}{{fill:var(--{name});background:var(--{name})}}\n"
    for name in ("reserved", "prepared", "ready", "unmanaged", "in_use", "stacks", "free", "scavenged", "rest")
)
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_BAR_UNITS = 10000
_LONGEST_WORD = 400


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(words: object, limit: int = _LONGEST_WORD) -> Markup:
    """Return any words as HTML: escaped, cut, with unprintable characters written out; Markup as it is."""
    if isinstance(words, Markup):
        return words
    return Markup(html.escape(_printable(str(words), limit), quote=True))


def _printable(words: str, limit: int) -> str:
    if len(words) > 4 * limit:
        words = words[: 2 * limit] + words[-2 * limit :]
    return clean(words, limit)


def element(tag: str, *parts: object, **attributes: object) -> Markup:
    """Return `<tag>parts</tag>`; the attribute class is written `class_`."""
    written = "".join(f' {name.rstrip("_")}="{text(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{written}>{''.join(text(part) for part in parts)}</{tag}>")


def join(parts: Iterable[object]) -> Markup:
    """Return the parts one after the other."""
    return Markup("".join(text(part) for part in parts))


def link(address: str, words: object) -> Markup:
    """Return a link to an address of this server."""
    return element("a", words, href=address)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar: bytes, how it is called, and the class that colours it."""

    bytes: int | None
    name: str
    colour: str


def bar(title: str, total: int | None, parts: Sequence[Part]) -> Markup:
    """Return a bar of `parts` of `total` bytes with its key; parts that are not known are left out."""
    known = [part for part in parts if part.bytes is not None]
    whole = max(total or 0, sum(part.bytes or 0 for part in known), 1)
    drawn, at = [], 0.0
    for part in known:
        width = _BAR_UNITS * (part.bytes or 0) / whole
        drawn.append(f'<rect class="{text(part.colour)}" x="{at:.1f}" y="0" width="{width:.1f}" height="1"/>')
        at += width
    words = f"{title} {size(total)}: " + ", ".join(f"{part.name} {size(part.bytes)}" for part in known)
    if not known:
        return element("ul", element("li", title, " ", element("b", size(total))), class_="key")
    picture = (
        f'<svg viewBox="0 0 {_BAR_UNITS} 1" preserveAspectRatio="none" role="img" aria-label="{text(words)}">'
        + "".join(drawn)
        + "</svg>"
    )
    items = [element("li", title, " ", element("b", size(total)))]
    items += [
        element(
            "li", element("i", class_=part.colour), part.name, " ", element("b", size(part.bytes)), " ",
            percent(part.bytes, whole),
        )
        for part in known
    ]  # fmt: skip
    return join((Markup(picture), element("ul", *items, class_="key")))


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table that scrolls sideways by itself where the screen is narrow."""
    head = element("tr", *(element("th", word) for word in heads))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("div", element("table", head, *body), class_="scroll")


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Return names and what is said of them; those without a word are left out."""
    return element("dl", *(join((element("dt", name), element("dd", words))) for name, words in rows if words))


def document(title: str, *parts: object) -> bytes:
    """Return a whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n"
        + join(parts)
        + "\n</body></html>\n"
    ).encode("utf-8", "replace")
