"""Judged examples as files, and policy SQL over them in a sandboxed child."""
