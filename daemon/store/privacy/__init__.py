"""Rows of erased people, and rows older than they are kept."""
