"""Whole services under every fault that one machine can produce; one ledger checks them all."""
