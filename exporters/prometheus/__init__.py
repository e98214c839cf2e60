"""Prometheus metrics: families made from a view of the targets, and the texts that a scrape gets."""

from exporters.prometheus.catalog import MetricOptions
from exporters.prometheus.collector import FleetCollector
from exporters.prometheus.scrape import Scrapes

__all__ = ["FleetCollector", "MetricOptions", "Scrapes"]
