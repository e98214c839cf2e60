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

# Advice that only Darwin has is kept apart from Linux's by this offset. Source: bsd/sys/mman.h of xnu.
DARWIN_ADVICE_BASE = 0x0DA0_0000
_DARWIN_ADVICE = {
    6: "zero_wired_pages",
    7: "free_reusable",
    8: "free_reuse",
    9: "can_reuse",
    11: "zero",
}


def advice_name(advice: int) -> str:
    """Return the lower-case name of an advice without MADV_, or `advice_N` for one that is not known."""
    if DARWIN_ADVICE_BASE <= advice < DARWIN_ADVICE_BASE + 0x10000:
        number = advice - DARWIN_ADVICE_BASE
        return _DARWIN_ADVICE.get(number, f"darwin_advice_{number}")
    return MADVISE_ADVICE.get(advice, f"advice_{advice}")
