"""Histories of events to vectors: the backbones that retrieval and ranking share."""
