"""Watching one process: the choice of a backend, the session that events and looks go into, and the report of it."""
