"""What every bus promises, tried on both: the embedded one, and RabbitMQ."""
