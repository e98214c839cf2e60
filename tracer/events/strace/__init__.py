"""The strace event source, live or from logs that it wrote."""
