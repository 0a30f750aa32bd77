"""The database channel on SQLite: one thread writes for all workers, a few connections read."""
