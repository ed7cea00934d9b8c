"""Statistics: arrays in, numbers out. Pure."""
