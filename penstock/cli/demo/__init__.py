"""`penstock demo`: a folder of its own, a reactor in it, messages for it, and a report."""

from penstock.cli.demo.demo import run_demo

__all__ = ["run_demo"]
