"""Parsers of files under /proc: pure, bounded, and of no process in particular."""
