"""Whole services: the reactor on a bus with real worker processes and a real database."""
