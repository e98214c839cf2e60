"""The kernel's view of a process: mappings, residency, limits."""
