"""Fault injection into trainings and their checkpoints, and the cost of checkpoints."""
