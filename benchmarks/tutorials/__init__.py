"""The five tutorials: as they are told, and improved, with the same environment and the same network."""
