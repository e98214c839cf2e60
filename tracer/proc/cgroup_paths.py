"""Which container and pod a process belongs to, read from its cgroup paths: pure functions of strings.

The shapes are those that docker, containerd, CRI-O, podman and the kubelet give their cgroups, under
the systemd driver (slices and scopes) and the cgroupfs driver (plain directories).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# One path component that stands for a container: an optional "runtime-" prefix, the 64-digit id, an optional
# ".scope"; or containerd's "slice:cri-containerd:id" when the kubelet and containerd disagree about the driver.
_CONTAINER = re.compile(r"(?:(?P<prefix>[a-zA-Z][\w.-]*)-|.*:(?P<driver>[\w.-]+):)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_FARGATE = re.compile(r"[0-9a-f]{32}-[0-9]{1,20}")
# Monitors of a container live beside it in cgroups that carry its id, but are not in it.
_MONITORS = ("conmon", "crio-conmon", "libpod-conmon")
_UUID = "[0-9a-f]{8}(?P<dash>[-_])(?:[0-9a-f]{4}(?P=dash)){3}[0-9a-f]{12}"
# Static pods are named by the hash of their manifest.
_MOST_COMPONENTS = 64
_POD = re.compile(rf"(?:^|[-_])pod(?P<uid>{_UUID}|[0-9a-f]{{32}})(?:\.slice)?(?::.*)?$")


def container_id(path: str) -> str | None:
    """Return the id of the innermost container that the cgroup path names, or None."""
    components = [part for part in path.split("/") if part]
    for index in range(len(components) - 1, -1, -1):
        found = _CONTAINER.fullmatch(components[index])
        if found and found["prefix"] not in _MONITORS:
            return found["id"]
        if _FARGATE.fullmatch(components[index]) and "ecs" in components[:index]:
            return components[index]
    return None


def pod_uid(path: str) -> str | None:
    """Return the Kubernetes pod uid (with dashes) that the cgroup path names, or None."""
    for component in reversed(path.split("/")):
        found = _POD.search(component)
        if found:
            return found["uid"].replace("_", "-")
    return None


def without_container(path: str) -> str:
    """Return the cgroup path above the outermost container that it names: the pod's, which outlives the container's."""
    components = path.split("/")
    for index in range(1, min(len(components), _MOST_COMPONENTS)):
        if container_id("/".join(components[: index + 1])) is not None:
            return "/".join(components[:index]) or "/"
    return path


def neighbour_id(path: str) -> str | None:
    """Return the id of a container whose cgroup lies beside our own, as "/../ID" shows it in our cgroup namespace.

    The runtime puts the containers of one pod side by side, and each into a cgroup namespace whose root is its own.
    """
    above, _, rest = path.lstrip("/").partition("/")
    beside = rest.partition("/")[0]
    return container_id(beside) if above == ".." and beside != ".." else None


def first_found(paths: Iterable[str]) -> tuple[str | None, str | None]:
    """Return (container id, pod uid) from the first of `paths` that names each."""
    container: str | None = None
    pod: str | None = None
    for path in paths:
        container = container or container_id(path)
        pod = pod or pod_uid(path)
    return container, pod
