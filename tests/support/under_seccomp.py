"""Run a command under a seccomp profile in the containers' JSON format: python -m tests.support.under_seccomp FILE CMD.

It needs no_new_privs or CAP_SYS_ADMIN, like every installation of a filter.

Format: https://github.com/containers/common/blob/main/pkg/seccomp/types.go
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

import pyseccomp

_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE, "SCMP_CMP_LT": pyseccomp.LT, "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_GE": pyseccomp.GE, "SCMP_CMP_GT": pyseccomp.GT,
}  # fmt: skip
_ARCHITECTURE = "amd64"
_NO_SUCH_CALL = -1  # __NR_SCMP_ERROR


def for_container(profile: dict[str, Any], has: frozenset[str]) -> dict[str, Any]:
    """Return the rules of a profile that an engine takes for a container with these capabilities ("CAP_BPF")."""
    return {**profile, "syscalls": [rule for rule in profile["syscalls"] if _holds(rule, has)]}


def _holds(rule: dict[str, Any], has: frozenset[str]) -> bool:
    only, never = (rule.get(name) or {} for name in ("includes", "excludes"))
    return (
        has.issuperset(only.get("caps") or ())
        and not has.intersection(never.get("caps") or ())
        and _ARCHITECTURE in (only.get("arches") or [_ARCHITECTURE])
        and _ARCHITECTURE not in (never.get("arches") or ())
    )


def install(profile: dict[str, Any]) -> None:
    """Install the filter for this process and all that it executes."""
    made = pyseccomp.SyscallFilter(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    for rule in profile["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet"))
        conditions = [_condition(one) for one in rule.get("args") or ()]
        for name in rule["names"]:
            if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) != _NO_SUCH_CALL:
                made.add_rule(action, name, *conditions)
    made.load()


def _action(name: str, number: int | None) -> Any:
    if name == "SCMP_ACT_ALLOW":
        return pyseccomp.ALLOW
    assert name == "SCMP_ACT_ERRNO", name
    return pyseccomp.ERRNO(errno.EPERM if number is None else number)


def _condition(one: dict[str, Any]) -> Any:
    if one["op"] == "SCMP_CMP_MASKED_EQ":
        return pyseccomp.Arg(one["index"], pyseccomp.MASKED_EQ, one["value"], one["valueTwo"])
    return pyseccomp.Arg(one["index"], _OPERATORS[one["op"]], one["value"])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="ascii") as file:
        wanted = json.load(file)
    install(wanted)
    os.execvp(sys.argv[2], sys.argv[2:])
