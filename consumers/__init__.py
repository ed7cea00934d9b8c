"""Kafka, HTTP and file events into the store."""

if not __name__.startswith("adaptd."):
    raise ImportError(f"import it as adaptd.{__name__}")
