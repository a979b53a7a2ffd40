"""Faster ways of the same computations."""
