"""One script for each peer; each runs under the Python of a virtual environment of its own."""
