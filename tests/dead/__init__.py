"""Dead letters as work."""
