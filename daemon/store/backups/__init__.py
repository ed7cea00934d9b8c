"""Copies of an installation, and the way back."""
