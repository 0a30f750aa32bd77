"""The database channel: what crosses, both ends of it, and a folder for each kind of database behind it."""
