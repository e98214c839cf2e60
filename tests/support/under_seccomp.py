"""Run a command under a seccomp profile in the containers' JSON format: python -m tests.support.under_seccomp FILE CMD.

It needs no_new_privs or CAP_SYS_ADMIN, like every installation of a filter.
"""

from __future__ import annotations

import errno
import json
import os
import sys

import pyseccomp

_OPERATORS = {"SCMP_CMP_EQ": pyseccomp.EQ}


def install(profile: dict[str, object]) -> None:
    """Install the filter for this process and all that it executes."""
    number = profile.get("defaultErrnoRet", errno.EPERM)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert isinstance(number, int)
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(number))
    rules = profile["syscalls"]
    assert isinstance(rules, list)
    for rule in rules:
        assert rule["action"] == "SCMP_ACT_ALLOW"
        conditions = [pyseccomp.Arg(one["index"], _OPERATORS[one["op"]], one["value"]) for one in rule.get("args", [])]
        for name in rule["names"]:
            made.add_rule(pyseccomp.ALLOW, name, *conditions)
    made.load()


if __name__ == "__main__":
    with open(sys.argv[1], encoding="ascii") as file:
        wanted = json.load(file)
    install(wanted)
    os.execv(sys.argv[2], sys.argv[2:])
