"""Settings: one frozen section a file, validated once, read nowhere else."""

from penstock.config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
