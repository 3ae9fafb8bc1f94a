"""What helps to test with mognet: fixtures for applications, and the proof that an engine keeps the laws."""
