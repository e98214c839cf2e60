"""How much memory of ours something holds that we keep: measured on the objects themselves, not guessed from counts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FrameType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np

# What leads from a thing to the rest of the program.
_APART: tuple[type, ...] = (
    type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, FrameType, GeneratorType,
)  # fmt: skip
_MOST_OBJECTS = 2_000_000  # counted for one thing: beyond, it is large enough
_ARRAY = 128  # bytes of the object


def held_bytes(things: Iterable[object], apart: tuple[type, ...] = ()) -> int:
    """Return the bytes of `things` and of all that they lead to, each counted once.

    What is an instance of a type in `apart` is not theirs, nor what only that leads to.
    """
    apart = (*_APART, *apart)
    seen: set[int] = set()
    waiting: list[Any] = list(things)
    total = 0
    while waiting and len(seen) < _MOST_OBJECTS:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, apart):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            # The collector does not see what an array is a view of.
            if thing.base is not None:
                waiting.append(thing.base)
            total += _ARRAY if thing.base is not None else _ARRAY + thing.nbytes
        else:
            total += sys.getsizeof(thing, 0)
            waiting += gc.get_referents(thing)
    return total
