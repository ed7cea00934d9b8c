"""Operator commands: data on stdout, words on stderr; they ask the running daemon over HTTP."""
