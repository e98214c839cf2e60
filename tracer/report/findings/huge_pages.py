"""What there is to do about transparent huge pages, as the machine is set: never what is set already."""

from __future__ import annotations

from gomem.tracer.report import HugePages, Report

_ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
_NONE = "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none"
_BY_HAND = "for this program alone: prctl(PR_SET_THP_DISABLE) before it starts"


def settings(report: Report) -> HugePages | None:
    """Return how they are set, None where it is not known."""
    return report.settings.huge_pages if report.settings else None


def _are_off(huge: HugePages) -> str | None:
    """Return by what no more huge pages come, None if they do."""
    if huge.disabled:
        return "They are off for this process already (PR_SET_THP_DISABLE)"
    return "They are off on this machine already (enabled is never)" if huge.enabled == "never" else None


def by_advice(huge: HugePages, amount: int) -> bool:
    """Tell whether most of so many bytes of huge pages are where the program asked for them (MADV_HUGEPAGE)."""
    return huge.in_advised is not None and huge.in_advised >= amount // 2


def fewer_huge_pages(report: Report) -> str:
    """Return what makes fewer of them, of which there are many now."""
    huge = settings(report)
    amount = (report.resident.huge_pages or 0) if report.resident else 0
    if huge is None:
        return f"set {_ENABLED} to madvise."
    off = _are_off(huge)
    if off is not None:
        before = "those that there are were made before, and stay until they are freed. A restart ends them."
        return f"{off[0].lower()}{off[1:]}: {before}"
    if by_advice(huge, amount):
        return (
            "most are where the program asked for them (MADV_HUGEPAGE), so enabled=madvise changes nothing: have it "
            f"not ask (an option of C allocators), or {_BY_HAND}."
        )
    if huge.enabled == "madvise":
        return (
            "enabled is madvise already, and they are where nobody asked for them: made by MADV_COLLAPSE or before "
            f"that was set. To be rid of them {_BY_HAND}, and restart it."
        )
    return f"set {_ENABLED} to madvise; {_BY_HAND}."


def no_refilling(report: Report) -> str:
    """Return what keeps khugepaged from filling holes again that the runtime made by giving pages back."""
    huge = settings(report)
    if huge is None:
        return f"Set {_NONE} to 0, or enabled to madvise."
    off = _are_off(huge)
    if off is not None:
        return f"{off}, so this will not grow: a restart gives it back."
    choices = [] if huge.max_ptes_none == 0 else [f"Set {_NONE} to 0 (it is {huge.max_ptes_none})"]
    if huge.enabled != "madvise":
        choices.append("set enabled to madvise" if choices else f"Set {_ENABLED} to madvise")
    if not choices:
        return (
            "max_ptes_none is 0 and enabled is madvise already: what there is was filled before that was set, and a "
            "restart gives it back."
        )
    return ", or ".join(choices) + "."
