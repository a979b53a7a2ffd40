"""Faults that happen to a training and to its checkpoints, and what checkpoints cost."""
