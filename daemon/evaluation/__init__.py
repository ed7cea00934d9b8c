"""Candidate against live on vLLM itself, and the verdict."""
