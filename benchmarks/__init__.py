"""Benchmarks of learning, speed and reliability."""
