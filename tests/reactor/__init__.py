"""The reactor: pure parts without a broker, whole ones on real processes."""
