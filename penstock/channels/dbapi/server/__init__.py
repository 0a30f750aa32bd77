"""What the drivers of MySQL and PostgreSQL over the channel share: when transactions begin, and how rows come."""
