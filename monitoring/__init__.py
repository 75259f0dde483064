"""Metrics, quality and drift."""
