"""The ways in beside Kafka: HTTP and files."""
