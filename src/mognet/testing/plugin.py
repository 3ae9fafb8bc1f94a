"""The pytest plugin: fixtures for applications that use mognet. Nothing heavy is imported until one is asked for."""
