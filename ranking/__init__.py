"""Candidates to ordered scores: features, histories, AdaF2M2."""
