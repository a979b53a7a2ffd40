"""Checkpoints from which a run continues exactly as if it had not been interrupted."""
