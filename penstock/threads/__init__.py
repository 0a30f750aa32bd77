"""Connections for people's own threads: one for each thread and database, closed with the thread."""
