"""The metrics that a scrape asked for by name, out of rendered exposition text."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

_SAMPLE = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ABOUT = re.compile(rb"# (?:HELP|TYPE|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*)")


def select_families(exposition: bytes, names: AbstractSet[str]) -> bytes:
    """Return the families of which the name, or that of one of their samples, is in `names`.

    Works upon the classic text format and OpenMetrics, whose final `# EOF` stays.
    """
    wanted = {name.encode("utf-8", "replace") for name in names}
    kept: list[bytes] = []
    family: list[bytes] = []
    family_name = b""
    matched = False

    def finish() -> None:
        if matched:
            kept.extend(family)

    for line in exposition.splitlines(keepends=True):
        about = _ABOUT.match(line)
        if about is not None:
            if about[1] != family_name:
                finish()
                family, family_name, matched = [], about[1], about[1] in wanted
            family.append(line)
            continue
        if line.startswith(b"# EOF"):
            finish()
            family, matched = [], False
            kept.append(line)
            continue
        sample = _SAMPLE.match(line)
        matched = matched or (sample is not None and sample[0] in wanted)
        family.append(line)
    finish()
    return b"".join(kept)
