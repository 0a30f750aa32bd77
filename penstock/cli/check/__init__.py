"""`penstock check`: what `penstock run` would find, found without changing or creating anything."""

from penstock.cli.check.application import check_application

__all__ = ["check_application"]
