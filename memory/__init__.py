"""The fast learner: recent errors correct the next scores."""
