"""Candidates to ordered scores: features, FuXi-alpha, AdaF2M2."""
