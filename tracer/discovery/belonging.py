"""What a process belongs to, from its cgroup paths and from what the pod that gomem runs in says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tracer.discovery.sighting import Sighting
from tracer.fleet.view import Belonging
from tracer.kernel.container import first_found


class BelongingSource(Protocol):
    """Answers without waiting; `generation` grows whenever an answer may have become another."""

    @property
    def generation(self) -> int:
        """How often what is known has changed."""
        ...

    def of(self, sighting: Sighting) -> Belonging:
        """Return what the process belongs to, as far as it is known now."""
        ...


@dataclass(frozen=True, slots=True)
class FromCgroups:
    """Container and pod as the cgroup paths name them; the node if it was told."""

    node: str | None = None
    generation: int = 0

    def of(self, sighting: Sighting) -> Belonging:
        """Return what the process's cgroup paths say."""
        container_id, pod_uid = by_paths(sighting.cgroups)
        return Belonging(container_id=container_id, pod_uid=pod_uid, node=self.node)


def by_paths(paths: Sequence[str]) -> tuple[str | None, str | None]:
    """Return (container id, pod uid) that a process's cgroup paths name."""
    return first_found(paths)
