"""Where probes go and how they are put there: uprobes and tracepoints."""
