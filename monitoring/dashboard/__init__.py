"""The web page for people on call: reads records, serves pages, holds nothing itself."""
