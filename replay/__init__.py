"""Recorded and simulated worlds, scored before they are learned."""
