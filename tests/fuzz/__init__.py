"""Malformed requests against the API server: `python -m tests.fuzz --requests 10000`, or `make fuzz`."""
