"""The suite is run by `running.py`, in a pytest of its own."""

collect_ignore = ["suite"]
