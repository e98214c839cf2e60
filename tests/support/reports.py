"""Reports as data, out of the JSON that the command line wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gomem.tracer.report import Report


def report_from(json: Mapping[str, Any]) -> Report:
    """Return the report of a JSON object that `report.to_dict` made; raises ValidationError for what is none."""
    return msgspec.convert(json, Report)
