"""Plugins of a Go program (-buildmode=plugin): each has a copy of the runtime's code, which needs probes of its own.

A plugin's functions call the copy (the linker binds them to it), and the copy works on the data of the program's one
runtime, to which the dynamic linker has bound it. What happens in it between its loading and its probes, nobody sees:
until then the model of the region states knows nothing, and the next look tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.go_marks import shares_packages
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import GomemError
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.proc.beneath import NotAsked
from gomem.tracer.process.target import ExeIdentity, Target
from gomem.tracer.program.go_program import GoProgram, load_bias
from gomem.tracer.program.mapped_files import open_executable
from gomem.tracer.report import Limit
from gomem.tracer.snapshot.inspection import Inspector

_MOST_FILES = 256  # that are looked into
_MOST_PLUGINS = 16
_PROT_EXEC, _MAP_ANONYMOUS = 4, 0x20

# The uprobes that a copy of the runtime gets, and limits for those that it cannot have.
ProbePlanner = Callable[[GoProgram], tuple[Sequence[UprobeSpec], Sequence[Limit]]]
Attach = Callable[[Sequence[UprobeSpec]], Sequence[SkippedUprobe]]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that the process has loaded at `bias`."""

    name: str
    program: GoProgram
    bias: int


class Plugins:
    """The plugins of one target, found when they are mapped, and probed then."""

    def __init__(
        self,
        target: Target,
        program: GoProgram,
        plan: ProbePlanner,
        attach: Attach,
        share: float = 1.0,
    ) -> None:
        """`plan` says which uprobes a copy of the runtime gets, `attach` puts them on the target.

        `share`: of our time, which `see` may take for searches in vain.
        """
        self.loaded: list[Plugin] = []
        self.limits: list[Limit] = []
        self._marks = no_events()
        self._target = target
        self._program = program
        self._plan = plan
        self._attach = attach
        self._known = {target.exe_identity.inode}
        self._share = share
        self._wanted_since: int | None = None  # CLOCK_MONOTONIC ns
        self._not_before = 0.0  # time.monotonic()

    def see(self, batch: EventBatch) -> EventBatch:
        """Look for plugins if something was mapped that may be one; return the batch, and STATES_UNSEEN for them.

        Raises nothing.
        """
        wanted = maps_code(batch)
        if wanted.any() and self._wanted_since is None:
            self._wanted_since = int(batch["time"][wanted][0])
        if self._wanted_since is not None and time.monotonic() >= self._not_before:
            self.search()
        if len(self._marks):
            batch, self._marks = np.concatenate((batch, self._marks)), no_events()
        return batch

    def search(self) -> list[Plugin]:
        """Probe the plugins that the target has mapped and that are not known yet; return them. Raises nothing."""
        found: list[Plugin] = []
        began, since, self._wanted_since = time.monotonic(), self._wanted_since, None
        with suppress(GomemError):
            mappings = read_mappings(self._target).mappings
            for row in np.flatnonzero(mappings.executable & (mappings.inode != 0)).tolist():
                inode = int(mappings.inode[row])
                if inode not in self._known and len(self._known) < _MOST_FILES:
                    self._known.add(inode)
                    found += self._load(mappings, row)
        if found:
            self._marks = np.zeros(1, EVENT)
            self._marks["kind"], self._marks["time"] = EventKind.STATES_UNSEEN, time.monotonic_ns()
            if since is not None:
                self.limits += [_unseen(plugin, (time.monotonic_ns() - since) / 1e9) for plugin in found]
        else:
            # What finds plugins is bounded by their number; a target can have us search in vain without end.
            ended = time.monotonic()
            self._not_before = ended + (ended - began) * (1 / self._share - 1)
        return found

    @property
    def waiting(self) -> bool:
        """Whether something was mapped that `see` has not looked into yet: call it again soon."""
        return self._wanted_since is not None

    def symbolize(self, address: int) -> str | None:
        """Return the name of the Go function of a plugin at an address in the process, None outside of them."""
        for plugin in self.loaded:
            name = plugin.program.symbolize(address, plugin.bias)
            if name is not None:
                return name
        return None

    def close(self) -> None:
        """Close the plugins' files."""
        for plugin in self.loaded:
            plugin.program.close()

    def _load(self, mappings: Mappings, row: int) -> list[Plugin]:
        name = mappings.name[row]
        exe = self._open(mappings, row)
        if exe is None:
            return []
        plugin = None
        try:
            if len(self.loaded) < _MOST_PLUGINS and shares_packages(exe):
                program = GoProgram(exe, self._program.build, FunctionTable.find(exe), None)
                identity = ExeIdentity(int(mappings.device[row]), int(mappings.inode[row]), 0, 0)
                bias = load_bias(exe, identity, mappings)
                if bias is not None:
                    specs, limits = self._plan(program)
                    self.limits += [*limits, *(skipped.limit(name) for skipped in self._attach(specs))]
                    plugin = Plugin(name, program, bias)
                    self.loaded.append(plugin)
        except (GomemError, OSError) as error:
            self.limits.append(Limit("plugin-events", f"the runtime's own events in {name}", str(error), ""))
        finally:
            if plugin is None:
                exe.close()
        return [plugin] if plugin else []

    def _open(self, mappings: Mappings, row: int) -> Executable | None:
        name = mappings.name[row]
        try:
            return open_executable(self._target.pid, mappings, row)
        except NotAsked as error:
            what = f"the runtime's own events in {name}, if it is a plugin"
            self.limits.append(Limit("plugin-events", what, f"it was not looked into: {error.strerror}", ""))
        except (OSError, GomemError):
            pass
        return None


def naming(inspector: Inspector, plugins: Plugins | None) -> Symbolize:
    """Return what names the functions of a program and its plugins.

    Knows nothing of who follows it: a circle of references would keep all that is known of a process when it has ended.
    """

    def symbolize(address: int) -> str | None:
        return inspector.symbolize(address) or (plugins.symbolize(address) if plugins is not None else None)

    return symbolize


def maps_code(batch: EventBatch) -> NDArray[np.bool_]:
    """Tell for each event whether it mapped code of a file, which may be a plugin's."""
    args = batch["args"]
    executable = (batch["kind"] == EventKind.MMAP) & (args[:, 2] & np.uint64(_PROT_EXEC) != 0)
    mapped: NDArray[np.bool_] = executable & (args[:, 3] & np.uint64(_MAP_ANONYMOUS) == 0) & (batch["result"] >= 0)
    return mapped


def _unseen(plugin: Plugin, seconds: float) -> Limit:
    return Limit(
        "plugin-seen-late",
        f"what the Go code of the plugin {plugin.name} did at first",
        f"it was loaded while the program was watched, and probed {seconds * 1000:.0f} ms later",
        "watch the program when it has loaded its plugins",
    )
