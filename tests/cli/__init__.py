"""The command line as a person or a service manager uses it: as a process, by its output and exit code."""
