"""Files that are complete at every moment, and files that are read without trusting them."""
