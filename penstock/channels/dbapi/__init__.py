"""PEP 249 over a channel: a module for each database, whose statements run on the loop."""
