"""What measures learning and speed."""
