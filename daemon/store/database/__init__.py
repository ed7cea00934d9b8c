"""The DuckDB connection, its file, its schema and its statements."""
