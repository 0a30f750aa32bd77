"""What only the embedded bus does: its file, its writer, its leases, and what it survives."""
