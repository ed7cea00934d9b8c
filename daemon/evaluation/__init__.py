"""The evaluation of a candidate against live, on vLLM itself, and its verdict."""
