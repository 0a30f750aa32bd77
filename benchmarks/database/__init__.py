"""What is promised of databases, measured: `python -m benchmarks.database`."""
