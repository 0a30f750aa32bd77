"""The bus contract and its two implementations: RabbitMQ, and an embedded durable queue in SQLite."""
