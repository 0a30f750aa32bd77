"""The database channel on MySQL, MariaDB and PostgreSQL: few server connections on the loop for many workers."""
