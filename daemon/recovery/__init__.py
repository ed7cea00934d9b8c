"""Backups, and a store that came back from one."""
