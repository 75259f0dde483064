"""Version 1 of the public API; everything but the .proto files is generated."""
