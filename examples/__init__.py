"""Apps to read and to run."""
