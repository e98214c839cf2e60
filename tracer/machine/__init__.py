"""The machine and our own place on it: rights, capabilities, memory that we may use."""
