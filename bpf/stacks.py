"""What bpf/programs/stacks.h has summed up in the kernel: by call stack, and a number that the program gives."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gomem.bpf import syscalls
from gomem.bpf.bcc_import import Module

PAIR = np.dtype([("stack", "<u8"), ("number", "<u8")])  # bpf/programs/stacks.h: struct stack_pair
MOST_STACKS = 1 << 13
MOST_PAIRS = 1 << 14
_TABLE_BYTES = 16 << 20  # of the kernel's memory for the sums, whatever the number of CPUs
_FRAMES, _LOST = 0, 1  # struct stack_figures

Pairs = NDArray[np.void]
Sums = NDArray[np.void]


class StackSum(NamedTuple):
    """The figures of one pair: `addresses` are return addresses of the process, the innermost first.

    They are () where the kernel was still writing them.
    """

    addresses: tuple[int, ...]
    number: int
    sums: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StackRoom:
    """For how many stacks there is room, up to what depth (a power of two), and what is summed up (a dtype of u64)."""

    depth: int
    sums: np.dtype[np.void]
    cpus: int
    stacks: int = MOST_STACKS

    @property
    def pairs(self) -> int:
        """For how many pairs of a stack and a number there is room: each takes a sum on every CPU."""
        return most_sums(MOST_PAIRS, self.sums, self.cpus)

    def constants(self) -> dict[str, int]:
        """Return what bpf/programs/stacks.h is compiled with; the seed of the hashes is another one each time."""
        if self.depth & (self.depth - 1) or not 0 < self.depth <= 128:
            raise ValueError(f"a depth of {self.depth} is no power of two up to 128")
        return {
            "STACK_DEPTH": self.depth,
            "STACKS": self.stacks,
            "STACK_SUMS": self.pairs,
            "STACK_SEED": secrets.randbits(62),
        }


def most_sums(most: int, sums: np.dtype[np.void], cpus: int) -> int:
    """Return how many entries a per-CPU table has room for, `most` at most."""
    return max(min(most, _TABLE_BYTES // (sums.itemsize * cpus)), 256)


class StackReader:
    """Reads them from a module whose program includes stacks.h, compiled with the constants of `room`."""

    def __init__(self, module: Module, room: StackRoom) -> None:
        """Read from a module that somebody else closes."""
        self._module = module
        self._room = room
        self._addresses: dict[int, tuple[int, ...]] = {}

    def end_outside(self, low: int, high: int) -> None:
        """Let stacks end with the first return address outside of [low, high): each that follows costs as much again.

        At first they go on to their end. With `low` equal to `high` they do again.
        """
        syscalls.map_update(self._module.map_fd("stack_within"), 0, struct.pack("<QQ", low, high - low))

    def sums(self) -> tuple[Pairs, Sums]:
        """Return the pairs (dtype PAIR, shape (n,)) and what was summed up for each, over all CPUs, shape (n,)."""
        room = self._room
        raw_keys, raw = syscalls.map_entries(
            self._module.map_fd("stack_sums"), room.sums.itemsize * room.cpus, room.pairs, PAIR.itemsize
        )
        return np.frombuffer(raw_keys, PAIR), over_cpus(np.frombuffer(raw, room.sums).reshape(-1, room.cpus))

    def addresses(self, stack: int) -> tuple[int, ...]:
        """Return the return addresses of a stack, the innermost first; () of one that is not known, or not yet."""
        known = self._addresses.get(stack)
        if known is None:
            known = self._read(stack)
            if known:
                self._addresses[stack] = known
        return known

    def all(self) -> Iterator[StackSum]:
        """Yield all that was summed up."""
        pairs, sums = self.sums()
        for (stack, number), figures in zip(pairs.tolist(), sums.tolist(), strict=True):
            yield StackSum(self.addresses(stack), number, figures)

    def frames(self) -> int:
        """Return how many frames all hits have walked over: what they cost depends on it."""
        return self._figure(_FRAMES)

    def lost(self) -> int:
        """Return of how many hits the stack found no room, or the pair."""
        return self._figure(_LOST)

    def _read(self, stack: int) -> tuple[int, ...]:
        size = 8 * (1 + self._room.depth)
        try:
            raw = syscalls.map_lookup(self._module.map_fd("stacks"), stack.to_bytes(8, "little"), size)
        except FileNotFoundError:
            return ()
        depth, *addresses = np.frombuffer(raw, np.uint64).tolist()
        return tuple(addresses[: min(depth, self._room.depth)])

    def _figure(self, which: int) -> int:
        raw = syscalls.map_lookup(self._module.map_fd("stack_figures"), 0, 16 * self._room.cpus)
        return int(np.frombuffer(raw, np.uint64).reshape(-1, 2)[:, which].sum())


def over_cpus(sums: Sums) -> Sums:
    """Return what all CPUs have summed up: the last axis is that of the CPUs."""
    total = np.zeros(sums.shape[:-1], sums.dtype)
    for name in sums.dtype.names or ():
        total[name] = sums[name].sum(axis=-1)
    return total
