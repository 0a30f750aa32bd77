"""What is RabbitMQ's alone; what both buses promise is in tests/contract."""
