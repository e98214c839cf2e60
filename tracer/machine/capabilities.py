"""The kernel's capabilities by name. Source: include/uapi/linux/capability.h, in the order of their numbers."""

from __future__ import annotations

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = _NAMES.split()


def capability_names(mask: int) -> list[str]:
    """Return the names ("CAP_BPF") of the capabilities set in `mask`, by number where they have none here."""
    numbers = [number for number in range(mask.bit_length()) if mask >> number & 1]
    return [f"CAP_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else f"CAP_{number}" for number in numbers]


def capability_number(name: str) -> int:
    """Return the kernel's number of "CAP_BPF". Raises ValueError for a name that is none."""
    return CAPABILITIES.index(name.removeprefix("CAP_"))
