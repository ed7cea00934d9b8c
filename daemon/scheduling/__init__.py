"""When an alias trains."""
