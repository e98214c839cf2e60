"""The states of a region of a Go program's address space, numbered once. Source: runtime/mem.go.

NONE: not the runtime's. RESERVED: its address space, without access. PREPARED: may be used, is not. READY: in use, or
at hand. UNKNOWN: nobody knows yet. Which transitions are legal is in tracer/model/states.py.
"""

from __future__ import annotations

NONE, RESERVED, PREPARED, READY, UNKNOWN = range(5)
STATE_NAMES = ("None", "Reserved", "Prepared", "Ready", "unknown")
