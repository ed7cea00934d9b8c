"""The DuckDB store: one writer thread, one repository per aggregate."""
