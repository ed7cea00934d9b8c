"""The gateway, in the model server's process or in one of its own."""
