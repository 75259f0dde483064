"""One file per headrace command."""
