"""Forgets people: every file of ours without them, and what learnt from them replaced."""
