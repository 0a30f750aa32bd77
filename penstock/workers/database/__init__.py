"""What the worker's own connection needs to know of each database: how to open, watch, test and blame it."""
