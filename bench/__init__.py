"""What is measured, and against whom: `make bench-ingest`, `make bench-examples`."""
