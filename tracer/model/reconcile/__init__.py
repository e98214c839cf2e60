"""Keeping the model true: snapshots are compared with what the events lead to."""
