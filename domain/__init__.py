"""The shared language of Headrace: events, examples, features, errors and the clock. No I/O."""
