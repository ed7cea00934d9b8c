"""What is compared: each reads the same topic into the same table, in a process of its own."""
