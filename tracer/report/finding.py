"""Statements in plain words."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Severity = Literal["info", "warning", "critical"]


class Finding(Struct, frozen=True):
    """One statement in plain words, with the figures behind it and what to do."""

    id: Annotated[str, Meta(pattern="^[a-z][a-z0-9-]*$")]
    severity: Severity
    title: str
    explanation: str
    evidence: dict[str, int | float | str | None]
    action: str
    actionable: Annotated[bool, Meta(description="false: `action` says that there is nothing to do")] = True
