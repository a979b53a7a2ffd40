"""Faster implementations of computations in other packages, with the same results."""
