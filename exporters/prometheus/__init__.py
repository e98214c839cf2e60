"""Prometheus metrics: families made from a view of the targets, and the texts that a scrape gets."""

from gomem.exporters.prometheus.catalog import MetricOptions
from gomem.exporters.prometheus.scrape import Scrapes

__all__ = ["MetricOptions", "Scrapes"]
