"""Checkpoints from which a run goes on exactly as if it had not stopped."""
