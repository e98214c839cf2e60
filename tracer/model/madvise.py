"""The advice values of madvise(2), by the kernel's names.

Source: include/uapi/asm-generic/mman-common.h (the same numbers on amd64, arm64, riscv64, s390x and ppc64).
"""

MADVISE_ADVICE: dict[int, str] = {
    0: "normal",
    1: "random",
    2: "sequential",
    3: "willneed",
    4: "dontneed",
    8: "free",
    9: "remove",
    10: "dontfork",
    11: "dofork",
    12: "mergeable",
    13: "unmergeable",
    14: "hugepage",
    15: "nohugepage",
    16: "dontdump",
    17: "dodump",
    18: "wipeonfork",
    19: "keeponfork",
    20: "cold",
    21: "pageout",
    22: "populate_read",
    23: "populate_write",
    24: "dontneed_locked",
    25: "collapse",
    100: "hwpoison",
    101: "soft_offline",
    102: "guard_install",
    103: "guard_remove",
}


def advice_name(advice: int) -> str:
    """Return the lower-case name of an advice without MADV_, or `advice_N` for one that is not known."""
    return MADVISE_ADVICE.get(advice, f"advice_{advice}")
