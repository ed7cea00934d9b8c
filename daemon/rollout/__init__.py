"""Canary steps, the guard, promotion and rollback."""
