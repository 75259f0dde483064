"""Catalog to candidates: a streaming prior, two towers and an index."""
