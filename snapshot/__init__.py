"""One consistent cut of everything, published by one rename."""
