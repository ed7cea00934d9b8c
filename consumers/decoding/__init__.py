"""Bytes to rows. Pure."""
