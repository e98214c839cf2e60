"""Traces of real processes by BPF, for tests of it."""
