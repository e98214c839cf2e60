"""One look at a target: the runtime and the kernel at the same moment, joined."""
