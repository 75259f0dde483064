"""See `protos.headrace.v1`."""
