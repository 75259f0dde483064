"""Models compared as papers compare them: fixed data, many epochs, one held-out item per user."""
