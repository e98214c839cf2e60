"""The memory map of a process as the answer to a request."""

from __future__ import annotations

from gomem.exporters.http.page_routes import MAP
from gomem.exporters.http.response import HTML, Response
from gomem.exporters.memory_map.page import map_page, map_policy
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.portrait import portrait


def memory_map(inspector: Inspector) -> Response:
    """Take a look at a process, and return the page of its memory map. Raises as `Inspector.look`."""
    page = map_page(*portrait(inspector)).encode()
    return Response(200, page, HTML, {"Content-Security-Policy": map_policy()}, MAP)
