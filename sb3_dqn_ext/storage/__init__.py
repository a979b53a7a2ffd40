"""Files that are whole at every moment."""
