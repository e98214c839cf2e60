"""Which Go processes are wanted: pure functions of what is known of a process.

A process is wanted if its pid is given, or if it matches every kind of condition to include (one of each kind is
enough) and none to exclude. Names, paths and values are globs (fnmatch(3): `*` also matches `/`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from gomem.tracer.discovery.process_info import ProcessInfo
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.errors import UsageError

# A container id is shown cut to 12 digits by most tools; fewer than this would match by chance.
SHORTEST_ID = 4
_HEX = re.compile(r"[0-9a-f]{4,64}")
_MOST_PID = 1 << 22  # PID_MAX_LIMIT of include/linux/threads.h
_MOST_UID = (1 << 32) - 2
_LONGEST = 4096

# What --label can ask for besides the pod's own labels.
_FIELDS: Mapping[str, Callable[[Workload], str | None]] = MappingProxyType(
    {
        "namespace": lambda one: one.namespace,
        "pod": lambda one: one.pod,
        "pod_uid": lambda one: one.pod_uid,
        "container": lambda one: one.container,
        "node": lambda one: one.node,
    }
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What to look for; within one kind any is enough, an empty kind says nothing."""

    exe: tuple[str, ...] = ()  # globs of the executable's name, or of its path if they have a slash
    container: tuple[str, ...] = ()  # ids, at least SHORTEST_ID digits of them, or globs of Kubernetes container names
    cgroup: tuple[str, ...] = ()  # globs of the cgroup's path
    uid: tuple[int, ...] = ()
    label: tuple[tuple[str, str], ...] = ()  # (key, glob of the value)

    def __bool__(self) -> bool:
        """Tell whether there is any condition."""
        return bool(self.exe or self.container or self.cgroup or self.uid or self.label)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which processes are wanted; with nothing given, all Go processes."""

    pids: frozenset[int] = frozenset()
    include: Conditions = Conditions()
    exclude: Conditions = Conditions()

    @property
    def only_pids(self) -> bool:
        """Whether there is nothing to discover: pids are given, and no condition to include."""
        return bool(self.pids) and not self.include

    @property
    def label_keys(self) -> frozenset[str]:
        """The pod labels that must be known to decide."""
        asked = {key for conditions in (self.include, self.exclude) for key, _ in conditions.label}
        return frozenset(asked - set(_FIELDS))

    def wants(self, info: ProcessInfo, workload: Workload) -> bool:
        """Tell whether the conditions ask for this Go process; whether its pid is given is another question."""
        if self.only_pids or any(met(self.exclude, info, workload)):
            return False
        return all(met(self.include, info, workload))


def met(conditions: Conditions, info: ProcessInfo, workload: Workload) -> list[bool]:
    """Return for each kind of condition that is given whether one of it is met."""
    answers: list[bool] = []
    if conditions.exe:
        answers.append(any(matches_exe(glob, info) for glob in conditions.exe))
    if conditions.container:
        answers.append(any(matches_container(word, workload) for word in conditions.container))
    if conditions.cgroup:
        answers.append(any(fnmatchcase(path, glob) for glob in conditions.cgroup for path in info.cgroups))
    if conditions.uid:
        answers.append(info.uid in conditions.uid)
    if conditions.label:
        answers.append(any(matches_label(key, glob, workload) for key, glob in conditions.label))
    return answers


def matches_exe(glob: str, info: ProcessInfo) -> bool:
    """Match an executable's name, or its path if the glob has a slash."""
    return fnmatchcase(info.exe if "/" in glob else info.name, glob)


def matches_container(word: str, workload: Workload) -> bool:
    """Match the beginning of a container's id, or its name."""
    if workload.container_id is not None and _HEX.fullmatch(word) and workload.container_id.startswith(word):
        return True
    return workload.container is not None and fnmatchcase(workload.container, word)


def matches_label(key: str, glob: str, workload: Workload) -> bool:
    """Match a field of the workload ("namespace", "pod", ...), or a label of the pod."""
    field = _FIELDS.get(key)
    value = field(workload) if field else workload.labels.get(key)
    return value is not None and fnmatchcase(value, glob)


def parse_selection(
    *,
    pids: Iterable[int] = (),
    include: Mapping[str, Iterable[str]] | None = None,
    exclude: Mapping[str, Iterable[str]] | None = None,
) -> Selection:
    """Return the selection that words of the command line ask for; keys are the fields of Conditions.

    Raises UsageError for a word that can never match.
    """
    chosen = frozenset(pids)
    for pid in chosen:
        if not 0 < pid <= _MOST_PID:
            raise UsageError(f"--pid {pid}: no process has this number", f"pids are 1 to {_MOST_PID}")
    return Selection(chosen, _conditions(include or {}, ""), _conditions(exclude or {}, "exclude-"))


def _conditions(words: Mapping[str, Iterable[str]], prefix: str) -> Conditions:
    given = {kind: tuple(values) for kind, values in words.items()}
    for kind, values in given.items():
        for value in values:
            if not value or len(value) > _LONGEST or "\0" in value:
                raise UsageError(f"--{prefix}{kind} {value[:40]!r}: not a value", f"give 1 to {_LONGEST} characters")
    option = f"--{prefix}"
    return Conditions(
        exe=given.get("exe", ()),
        container=tuple(_container(f"{option}container", word) for word in given.get("container", ())),
        cgroup=tuple(_cgroup(f"{option}cgroup", word) for word in given.get("cgroup", ())),
        uid=tuple(_uid(f"{option}uid", word) for word in given.get("uid", ())),
        label=tuple(_label(f"{option}label", word) for word in given.get("label", ())),
    )


def _container(option: str, word: str) -> str:
    """Accept an id with or without its runtime ("containerd://...")."""
    plain = word.rpartition("://")[2]
    if re.fullmatch(r"[0-9a-f]{1,3}", plain):
        raise UsageError(
            f"{option} {word}: too short to tell containers apart", f"give at least {SHORTEST_ID} digits of the id"
        )
    if not plain or "/" in plain:
        raise UsageError(f"{option} {word}: neither a container's id nor its name", "for a cgroup's path use --cgroup")
    return plain


def _cgroup(option: str, word: str) -> str:
    if not word.startswith(("/", "*", "?", "[")):
        raise UsageError(
            f"{option} {word}: a cgroup's path starts with a slash", f"for example {option} '/system.slice/*'"
        )
    return word


def _uid(option: str, word: str) -> int:
    if word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= _MOST_UID:
        return int(word)
    raise UsageError(f"{option} {word}: not a user id", f"give a number, for example {option} 1000 (see id -u NAME)")


def _label(option: str, word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise UsageError(
            f"{option} {word}: not KEY=VALUE",
            f"for example {option} app=checkout, {option} namespace=prod or {option} pod='checkout-*'",
        )
    return key, value
