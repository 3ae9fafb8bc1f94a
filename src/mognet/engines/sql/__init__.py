"""Engines that keep line and records in SQL tables."""
