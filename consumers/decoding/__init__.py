"""Decoding: bytes to rows. Pure."""
