"""Event log to labelled examples to learners."""
