"""The composition root; nothing imports it."""
