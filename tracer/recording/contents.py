"""The kinds of frames in a recording, and what each of them says.

BEGINNING comes first and ENDING last. EVENTS and SIGHT stand in the order in which events and looks were taken, so that
a Reconciler that gets them again comes to the same model. NAMES precede the events that need them. LOOK has all that
was seen, for some of the looks: the first, one every ten seconds, and the last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import numpy as np

from gomem.tracer.recording.columns import pack, unpack
from gomem.tracer.recording.encoding import Encoder, rebuild
from gomem.tracer.recording.frames import RecordingError
from gomem.tracer.recording.watching import Beginning, Ending, Progress

MOST_NAMES = 4096  # of one frame
MAX_NAME = 2048  # characters of a function's name; the linker's own are shorter, save those of generics


class FrameKind(IntEnum):
    """What a frame holds. A reader passes over kinds that it does not know."""

    BEGINNING = 1
    LOOK = 2
    EVENTS = 3
    NAMES = 4
    PROGRESS = 5
    ENDING = 6
    SIGHT = 7


Plain = TypeVar("Plain", Beginning, Progress, Ending)


def encode(value: Beginning | Progress | Ending) -> bytes:
    """Return the payload of a frame that is one object."""
    encoder = Encoder()
    return pack({"value": encoder.plain(value, "value")}, encoder.columns)


def decode(kind: type[Plain], payload: bytes, stored: int | None = None) -> Plain:
    """Return the object of a payload; raises RecordingError."""
    body, columns = unpack(payload, stored)
    return rebuild(kind, body.get("value"), columns)


def encode_names(names: dict[int, str]) -> bytes:
    """Return the payload for the names of some addresses in code, at most MOST_NAMES."""
    ordered = sorted(names)
    texts = [names[address][:MAX_NAME] for address in ordered]
    return pack({"names": list(texts)}, {"address": np.array(ordered, np.uint64)})


def decode_names(payload: bytes, stored: int | None = None) -> dict[int, str]:
    """Return what `encode_names` was given; raises RecordingError."""
    body, columns = unpack(payload, stored)
    names, addresses = body.get("names"), columns.get("address")
    if not isinstance(names, list) or addresses is None or len(names) != len(addresses) or len(names) > MOST_NAMES:
        raise RecordingError("names without their addresses")
    found: dict[int, str] = {}
    for address, name in zip(addresses.tolist(), names, strict=True):
        if not isinstance(name, str) or not isinstance(address, int):
            raise RecordingError("a name that is none")
        found[address] = name[:MAX_NAME]
    return found
