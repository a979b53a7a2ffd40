"""The five tutorials: with their own hyperparameters, and improved with the same environment and network."""
