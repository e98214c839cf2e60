"""A plugin of pytest that puts each build onto a file system of the virtual machine's own when a test asks for it.

What another machine serves gets no probes from gomem.
"""

from __future__ import annotations

import shutil
from functools import wraps
from pathlib import Path
from typing import Any

from tests.support import builds

_COPIES = Path("/run/copies")  # a tmpfs


def pytest_configure() -> None:
    """Have all that is built go through here."""
    make = builds.built

    @wraps(make)
    def built(*words: Any, **options: Any) -> Path:
        return copied(make(*words, **options))

    builds.built = built


def copied(path: Path) -> Path:
    """Return a copy of a file there, made once."""
    copy = _COPIES / path.relative_to("/")
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return copy
