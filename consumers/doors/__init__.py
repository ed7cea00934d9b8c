"""Doors: the ways in beside Kafka, HTTP and files."""
