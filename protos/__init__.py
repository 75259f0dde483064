"""Public protos of Headrace, and the code generated from them."""
