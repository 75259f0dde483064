"""The gRPC server and the request path behind it."""
