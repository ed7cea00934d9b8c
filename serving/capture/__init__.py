"""Capture: answers on their way to the daemon, in the gateway's process."""
