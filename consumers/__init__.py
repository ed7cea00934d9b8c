"""Kafka and HTTP events into the store."""
