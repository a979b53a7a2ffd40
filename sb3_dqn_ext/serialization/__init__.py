"""Nested data, classes and objects as JSON."""
