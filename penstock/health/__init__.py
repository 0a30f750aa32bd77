"""How the service is, for those who watch it: probes, metrics, systemd, a file; and where the loop stands when it does."""
