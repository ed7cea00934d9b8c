"""The gateway, in the model server's process or in a process of its own."""
