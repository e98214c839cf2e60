"""Black boxes: what was known last of a process that the kernel killed, kept in bounded space."""
