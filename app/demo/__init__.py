"""`headrace demo`: a world streams through everything, and a table says what happened."""
