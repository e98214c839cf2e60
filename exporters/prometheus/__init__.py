"""Prometheus metrics: families made from a view of the targets."""
