"""The decision when an alias trains, and the start of its runs."""
