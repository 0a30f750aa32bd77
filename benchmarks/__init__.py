"""Measurements; each prints ratios of contestants that ran interleaved in one run."""
