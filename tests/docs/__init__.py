"""The documents are kept to their word: programs in them run, commands exist, settings and files are as listed."""
