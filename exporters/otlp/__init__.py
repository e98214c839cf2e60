"""Metrics pushed by OTLP."""
